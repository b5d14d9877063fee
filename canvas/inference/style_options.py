"""A style as the command line asks for it: by images, a board, or a mined cluster."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canvas.inference.files import load_image
from canvas.styles.table import CENTRE_PULL, STYLES_FOLDER, Style, find_style, read_styles

if TYPE_CHECKING:
    from PIL import Image

    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt

RequestedStyle = Sequence["Image.Image"] | Style


def add_style_options(command: argparse.ArgumentParser) -> None:
    """The options that `asked` and `told` read."""
    ways = command.add_argument_group("style", "shown by images or known by name; with --prompt or without")
    ways.add_argument("--style", type=Path, nargs="*", metavar="IMAGE", help="style images, up to 16")
    ways.add_argument("--board", metavar="NAME", help="a board's images")
    ways.add_argument("--style-cluster", metavar="NAME", help="a cluster that mine_styles found")
    ways.add_argument("--style-weights", type=float, nargs="+", metavar="W", help="of the images; they sum to 1")
    ways.add_argument("--style-apart", action="store_true", help="images as token sets of their own, not averaged")
    ways.add_argument(
        "--style-strength", type=float, help="0: no style, 1: as trained; half of it counts beside a prompt"
    )
    ways.add_argument(
        "--style-typical",
        type=float,
        metavar="SHARE",
        help=f"how far images are drawn to the nearest mined cluster, 0 to 1; {CENTRE_PULL:g} if not given",
    )
    ways.add_argument(
        "--style-layers",
        nargs="+",
        metavar="WHERE",
        help="all, the default; style: those of style alone; or LAYER=FACTOR ..., as up_blocks.0.attentions.1=1",
    )


def read_requested_style(options: argparse.Namespace) -> RequestedStyle | None:
    """The pictures or the mined style that the options name, read before a model is; None: no style.

    Raises ValueError in one sentence for several ways at once, too few or many pictures, what is no picture, and names
    that are unknown.
    """
    from canvas.inference.style import check_image_count

    ways = {
        "--style": options.style,
        "--board": options.board,
        "--style-cluster": options.style_cluster,
    }
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} were given: show the style in one way")
    about_pictures = options.style_weights is not None or options.style_apart or options.style_typical is not None
    if given != ["--style"] and about_pictures:
        raise ValueError(
            "--style-weights, --style-apart and --style-typical are about the images of --style: give some"
        )
    if not given:
        if options.style_strength is not None or options.style_layers is not None:
            raise ValueError("--style-strength and --style-layers are about a style: show one, or leave them out")
        return None
    if options.style is not None:
        check_image_count(len(options.style))
        return [load_image(path) for path in options.style]
    folder = options.model / STYLES_FOLDER
    if not folder.is_dir():
        raise ValueError(f"{options.model} knows no boards and clusters: assemble it with the styles of mine_styles")
    kind = "board" if options.board is not None else "cluster"
    return find_style(read_styles(folder), kind, options.board if kind == "board" else options.style_cluster)


def encode_requested_style(
    options: argparse.Namespace, pipeline: CanvasPipeline, found: RequestedStyle | None
) -> StylePrompt | None:
    """What the denoiser is told of the style that was `asked` for."""
    from canvas.inference.style import build_style_prompt, encode_style_images

    if found is None:
        return None
    how: dict[str, Any] = {"strength": options.style_strength, "layers": parse_layers(options.style_layers or ["all"])}
    if isinstance(found, Style):
        return build_style_prompt(pipeline, {"uve": found.uve[None], "clip": found.clip[None]}, **how)
    if options.style_typical is not None:
        how["typical"] = options.style_typical
    return encode_style_images(pipeline, found, weights=options.style_weights, apart=options.style_apart, **how)


def parse_layers(words: Sequence[str]) -> str | Mapping[str, float]:
    """ "all", "style", or factors by layer from "LAYER=FACTOR" each. Raises ValueError for anything else."""
    if len(words) == 1 and words[0] in ("all", "style"):
        return words[0]
    factors = {}
    for word in words:
        name, _, factor = word.partition("=")
        try:
            factors[name] = float(factor)
        except ValueError:
            raise ValueError(f"--style-layers {word!r} is not understood: say all, style, or LAYER=FACTOR") from None
    return factors
