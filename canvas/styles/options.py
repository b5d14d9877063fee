"""Options of `python -m canvas generate` about a style."""

from __future__ import annotations

import argparse
from pathlib import Path

from canvas.styles.table import CENTRE_PULL


def add_style_options(command: argparse.ArgumentParser) -> None:
    """Add the options of a style: by images, a board, or a mined cluster."""
    group = command.add_argument_group("style", "given by images or by name; with --prompt or without")
    group.add_argument("--style", type=Path, nargs="*", metavar="IMAGE", help="style images, up to 16")
    group.add_argument("--board", metavar="NAME", help="a board's images")
    group.add_argument("--style-cluster", metavar="NAME", help="a cluster that mine_styles found")
    group.add_argument("--style-weights", type=float, nargs="+", metavar="W", help="of the images; they sum to 1")
    group.add_argument("--style-apart", action="store_true", help="images as token sets of their own, not averaged")
    group.add_argument(
        "--style-strength", type=float, help="0: no style, 1: as trained; half of it counts beside a prompt"
    )
    group.add_argument(
        "--style-typical",
        type=float,
        metavar="SHARE",
        help=f"how far images are drawn to the nearest mined cluster, 0 to 1; {CENTRE_PULL:g} if not given",
    )
    group.add_argument(
        "--style-layers",
        nargs="+",
        metavar="WHERE",
        help="all, the default; style: those of style alone; or LAYER=FACTOR ..., as up_blocks.0.attentions.1=1",
    )
