"""How good are extended photographs, long canvases, scenes of several products, and products in the scene's light?

    OMP_NUM_THREADS=2 python -m bench.scenes [--parts outpainting banners products light] [--root .]
        [--pins 120] [--scenes 100]

On held-out products of a full run below `--root` (models/ and artifacts/). It prints JSON, a line for each part, in
some two minutes. The stage `evaluate_scenes` makes the sheets.

- outpainting: 25 to 50 % of real pins are hidden and generated again. KID of that part to the hidden one, the gradient
  at the old border over that beside it, repetition; the same of the real pins, and of mirrored ones.
- banners: 3 to 1. The gradient at the ends of windows against that between them, and repetition against real bands.
- products: scenes of two and three. What a segmenter omits or finds too much, what an embedding takes for a duplicate,
  and the same with these products on real empty scenes: the instruments' own errors.
- light: hard against soft, of products without their scene's light. Certificates that `verify` passes, and the judge of
  harmony (evaluation.judges.harmony) with its own accuracy on held-out pins.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.scenes.light import measure_light
from bench.scenes.outpainting import measure_banners, measure_outpainting
from bench.scenes.products import measure_products
from bench.scenes.subjects import load_subjects
from evaluation.scenes.subjects import Subjects

PARTS: Mapping[str, Callable[[Subjects, argparse.Namespace], Any]] = {
    "outpainting": lambda subjects, options: measure_outpainting(subjects, options.pins),
    "banners": lambda subjects, options: measure_banners(subjects, options.pins // 4),
    "products": lambda subjects, options: measure_products(subjects, options.root, options.scenes),
    "light": lambda subjects, options: measure_light(subjects, options.root, options.pins // 2),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each part; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.scenes")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--root", type=Path, default=Path(), help="of the full run")
    parser.add_argument("--pins", type=int, default=120)
    parser.add_argument("--scenes", type=int, default=100)
    options = parser.parse_args(arguments)
    needed = ("models/canvas", "models/uve", "artifacts/pins", "artifacts/truth")
    if missing := [path for path in needed if not (options.root / path).is_dir()]:
        print(f"bench.scenes needs {', '.join(missing)}: run the whole pipeline first", file=sys.stderr)
        return 1
    subjects = load_subjects(options.root, options.pins)
    for part in options.parts:
        print(json.dumps({part: PARTS[part](subjects, options)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
