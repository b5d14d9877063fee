"""`python -m canvas generate`: paint backgrounds round a product."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        for path in generate(options):
            print(path)
    except (ValueError, OSError) as error:
        print(f"canvas {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def generate(options: argparse.Namespace) -> list[Path]:
    """The files written, one a candidate, named after the product and the candidate's seed."""
    from canvas.inference.files import LOSSLESS, picture, save_lossless

    if options.format not in LOSSLESS:
        raise ValueError(
            f"--format {options.format} is refused, it would change the product's pixels or is unknown; "
            f"use {' or '.join(LOSSLESS)}"
        )
    product = picture(options.product)
    mask = picture(options.mask) if options.mask else None

    from canvas.inference.pipeline import CanvasPipeline

    pipeline = CanvasPipeline.from_pretrained(options.model)
    pipeline.merge_lora()
    pipeline.to(options.device)
    made = pipeline(
        product,
        options.prompt,
        mask=mask,
        negative_prompt=options.negative_prompt,
        guidance_scale=options.guidance,
        guidance_rescale=options.guidance_rescale,
        num_inference_steps=options.steps,
        num_candidates=options.candidates,
        seed=options.seed,
        scheduler=options.scheduler,
    )
    print(f"product cut out by its {made.product.origin}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    paths = []
    for candidate, image in enumerate(made.images):
        path = options.out / f"{options.product.stem}-{options.seed + candidate}.{options.format}"
        save_lossless(image, path)
        paths.append(path)
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="canvas", description="Product-preserving background generation.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="paint backgrounds round a product; its pixels stay as they are")
    command.add_argument("--model", type=Path, required=True, help="directory of the assembled pipeline")
    command.add_argument("--product", type=Path, required=True, help="RGBA cut-out, or RGB with --mask, or RGB alone")
    command.add_argument("--mask", type=Path, help="white = product; of the product image's size")
    command.add_argument("--prompt", required=True)
    command.add_argument("--negative-prompt")
    command.add_argument("--candidates", type=int, default=4)
    command.add_argument("--steps", type=int, default=30)
    command.add_argument("--guidance", type=float, default=5.0, help="guidance scale; 1: none")
    command.add_argument("--guidance-rescale", type=float, default=0.0)
    command.add_argument("--scheduler", help="euler, heun, dpm++ (flow); ddim, euler, dpm++ (eps, v)")
    command.add_argument("--seed", type=int, default=0, help="of the first candidate; the others count up")
    command.add_argument("--device", default="cpu")
    command.add_argument("--format", default="png", help="png or webp (lossless)")
    command.add_argument("--out", type=Path, default=Path())
    return parser


if __name__ == "__main__":
    sys.exit(main())
