"""Eight candidates of one product: our pipeline against diffusers' own, in one run, one precision, in turns.

    OMP_NUM_THREADS=2 python -m bench.generation [--rounds 7] [--seeds 0 1 2] [--settings ours "8 steps"] [--root DIR]

The transformer needs artifacts/ and models/ of a finished run: its generator is timed and judged, as is diffusers'
`FluxFillPipeline` round the same weights with the LoRAs fused, and each setting of bench.generation.transformer alone.
Quality is of the products and prompts of evaluate_backdrop, by the judges of bench.families; without seeds nothing is
judged. It prints a page and writes it with all figures into --out. `--profile unet` times the UNet with random weights
against `StableDiffusionXLInpaintPipeline`, and prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from canvas.terminal import strip_controls
from canvas.train.spec import Precision

NEEDED = (
    *(f"artifacts/{name}" for name in ("pins", "kept", "masks", "captions")),
    *(f"models/{name}" for name in ("canvas", "judges")),
)
"""Folders of a finished run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.generation", description="Our pipeline against diffusers' own.")
    parser.add_argument("--profile", default="demo", help="of the finished run; unet: the UNet, with random weights")
    parser.add_argument("--rounds", type=int, default=7, help="of the times, of which the median counts")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the judged images; none: no quality")
    parser.add_argument("--products", type=int, help="held-out ones; by default as evaluate_backdrop has them")
    parser.add_argument("--settings", nargs="*", help="names of bench.generation.transformer; by default all")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="of both sides")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the run's artifacts/ and models/")
    parser.add_argument("--out", type=Path, default=Path("reports/generation"))
    options = parser.parse_args(arguments)
    if options.profile == "unet":
        from bench.generation import unet

        print(json.dumps(unet.measure(options.rounds), indent=1))
        return 0
    if missing := [path for path in NEEDED if not (options.root / path).is_dir()]:
        print(f"bench.generation: {', '.join(missing)} missing: run `make demo` first", file=sys.stderr)
        return 1

    from bench.families.judging import write_report
    from bench.generation import transformer

    try:
        figures = transformer.measure(
            options.root.resolve(),
            options.out / "work",
            options.profile,
            rounds=options.rounds,
            seeds=options.seeds,
            products=options.products,
            settings=transformer.ALL_SETTINGS if options.settings is None else options.settings,
            precision=options.precision,
        )
    except ValueError as error:
        print(strip_controls(f"bench.generation: {error}"), file=sys.stderr)
        return 1
    page = transformer.format_page(figures)
    options.out.mkdir(parents=True, exist_ok=True)
    write_report(options.out / "generation.json", figures)
    (options.out / "generation.md").write_text(page + "\n", encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
