"""What the options of `python -m canvas generate` about a style name: read before a model is loaded, then encoded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from canvas.inference.files import read_image_file
from canvas.inference.style import (
    Layers,
    StylePrompt,
    build_style_prompt,
    check_image_count,
    check_layers,
    check_strength,
    check_weights,
    encode_style_images,
)
from canvas.pins.images import ImageLimits
from canvas.styles.table import CENTRE_PULL, STYLES_FOLDER, Style, find_style, read_styles
from canvas.terminal import print_notes

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline


def read_style(options: argparse.Namespace, limits: ImageLimits) -> Sequence[Image.Image] | Style | None:
    """Read the images or the mined style that the options name, before a model is loaded; None: no style.

    Raises:
        ValueError: In one sentence, for several ways at once, too few or many images, what is no image, and unknown
            names.
    """
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
    check_strength(options.style_strength)
    check_layers(parse_layers(options.style_layers or ["all"]))
    if options.style is not None:
        check_image_count(len(options.style))
        check_weights(options.style_weights, len(options.style))
        images = [read_image_file(path, limits) for path in options.style]
        for path, image in zip(options.style, images, strict=True):
            print_notes(path, image.notes)
        return [image.image for image in images]
    folder = options.model / STYLES_FOLDER
    if not folder.is_dir():
        raise ValueError(f"{options.model} knows no boards and clusters: assemble it with the styles of mine_styles")
    kind = "cluster" if options.board is None else "board"
    return find_style(read_styles(folder), kind, options.style_cluster if options.board is None else options.board)


def encode_style(
    options: argparse.Namespace, pipeline: CanvasPipeline, requested: Sequence[Image.Image] | Style | None
) -> StylePrompt | None:
    """Encode what `read_style` returned."""
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
