"""A style as the command line asks for it: by images, a board, or a mined cluster."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.inference.files import load_image
from canvas.styles.table import CENTRE_PULL, STYLES_FOLDER, Style, find_style, read_styles

if TYPE_CHECKING:
    from PIL import Image

    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import Layers, StylePrompt

RequestedStyle = Sequence["Image.Image"] | Style


def add_style_options(command: argparse.ArgumentParser) -> None:
    """Add the options that the other functions read."""
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


def read_requested_style(options: argparse.Namespace) -> RequestedStyle | None:
    """Read the images or the mined style that the options name, before a model is loaded; None: no style.

    Raises:
        ValueError: In one sentence, for several ways at once, too few or many images, what is no image, and unknown
            names.
    """
    from canvas.inference.style import check_image_count

    ways = {"--style": options.style, "--board": options.board, "--style-cluster": options.style_cluster}
    used = [name for name, value in ways.items() if value is not None]
    if len(used) > 1:
        raise ValueError(f"{' and '.join(used)} were given: give the style in one way")
    if used != ["--style"] and (options.style_weights or options.style_apart or options.style_typical is not None):
        raise ValueError(
            "--style-weights, --style-apart and --style-typical are about the images of --style: give some"
        )
    if not used:
        if options.style_strength is not None or options.style_layers is not None:
            raise ValueError("--style-strength and --style-layers are about a style: give one, or leave them out")
        return None
    if options.style is not None:
        check_image_count(len(options.style))
        return [load_image(path) for path in options.style]
    folder = options.model / STYLES_FOLDER
    if not folder.is_dir():
        raise ValueError(f"{options.model} knows no boards and clusters: assemble it with the styles of mine_styles")
    kind = "cluster" if options.board is None else "board"
    return find_style(read_styles(folder), kind, options.style_cluster if options.board is None else options.board)


def encode_requested_style(
    options: argparse.Namespace, pipeline: CanvasPipeline, requested: RequestedStyle | None
) -> StylePrompt | None:
    """Encode what `read_requested_style` returned."""
    from canvas.inference.style import build_style_prompt, encode_style_images

    if requested is None:
        return None
    strength, layers = options.style_strength, parse_layers(options.style_layers or ["all"])
    if isinstance(requested, Style):
        parts = {"uve": requested.uve[None], "clip": requested.clip[None]}
        return build_style_prompt(pipeline, parts, strength=strength, layers=layers)
    return encode_style_images(
        pipeline,
        requested,
        weights=options.style_weights,
        apart=options.style_apart,
        centre_pull=CENTRE_PULL if options.style_typical is None else options.style_typical,
        strength=strength,
        layers=layers,
    )


def parse_layers(words: Sequence[str]) -> Layers:
    """Return "all", "style", or factors by layer from "LAYER=FACTOR" each. Raises ValueError for anything else."""
    if list(words) == ["all"]:
        return "all"
    if list(words) == ["style"]:
        return "style"
    factors = {}
    for word in words:
        name, _, factor = word.partition("=")
        try:
            factors[name] = float(factor)
        except ValueError:
            raise ValueError(f"--style-layers {word!r} is not understood: say all, style, or LAYER=FACTOR") from None
    return factors
