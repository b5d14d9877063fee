"""What is left of the old background along a product's edge, with and without mending: against the renderer's truth.

    OMP_NUM_THREADS=1 python -m bench.fringe [--side 192] [--places 6]

Held-out products of the showroom are composed on white, as in a catalogue, and in a scene; cut out again by a mask; and
put before a dark background. The mask is the true one, that one two pixels too large or too small, or the segmenter's.
Without mending it is feathered, as in mode hard. It needs data/ and models/segmenter; it prints JSON: means over
products and places, with 95 % intervals that resample products.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.measurement import ROOT
from canvas.inference.product import Product, composite_pixels, feather_mask, mend_product
from canvas.light.band import compute_reach
from canvas.light.gain import FloatPixels
from canvas.masks.simulation import dilate_by_disk, erode_by_disk
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, blend_pixels
from canvas.segmenter.ensemble import predict_mattes
from canvas.segmenter.model import Segmenter, load_segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.sources.showroom.camera import CameraView, render_view
from canvas.sources.showroom.compositing import composite_over, place_cutout
from canvas.sources.showroom.products import load_products
from canvas.sources.showroom.render import load_panoramas
from canvas.sources.showroom.spec import SCENES
from evaluation.measures.masks import FringeScore, score_fringe
from evaluation.statistics.intervals import bootstrap_mean
from lifecycle.declare.params import load_sections, read_section

DARK = 24
"""Level of the new background."""
OFF = 2
"""Pixels at a side of 192 by which masks are too large or too small."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A product as a catalogue shows it, and what the renderer knows of it."""

    product_id: str
    pixels: Pixels
    colours: Pixels  # the product's own
    alpha: Alpha


def iterate_photographs(side: int, places: int) -> Iterator[tuple[str, Photograph]]:
    """Yield each held-out product on white and in a scene, in several sizes, as ("white" or "scene", photograph)."""
    random = np.random.default_rng(0)
    panoramas = load_panoramas(ROOT / "data" / "showroom")
    held_out = [product for product in load_products(ROOT / "data" / "showroom") if product.held_out]
    for product in held_out:
        for place in range(places):
            paste = place_cutout(
                product.cutouts[place % len(product.cutouts)],
                (side, side),
                scale=float(random.uniform(0.4, 0.8)),
                widest=0.8,
                center=float(random.uniform(0.4, 0.6)),
                bottom=0.92,
                mirrored=False,
                turn=0.0,
            )
            scene = SCENES[int(random.integers(len(SCENES)))]
            view = CameraView(float(random.uniform(0, 360)), 0.0, 70.0, side, side)
            behind = {"white": np.ones((side, side, 3), np.float32), "scene": render_view(panoramas[scene.file], view)}
            for name, background in behind.items():
                composite = composite_over(paste.color, paste.matte, background)
                alpha = paste.matte.astype(np.float32)
                yield name, Photograph(product.product_id, _quantize(composite), _quantize(paste.color), alpha)


def _quantize(pixels: FloatPixels) -> Pixels:
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def score(photograph: Photograph, product: Product) -> FringeScore:
    """Score the product before a dark background."""
    dark = np.full_like(photograph.pixels, DARK)
    truth = blend_pixels(photograph.colours, photograph.alpha, dark)
    return score_fringe(composite_pixels(dark, product), truth, photograph.alpha, compute_reach(dark.shape))


def score_masks(
    photograph: Photograph, segmenter: Segmenter, edges: EdgeSpec
) -> Iterator[tuple[str, FringeScore, FringeScore]]:
    """Yield, of each mask of the photograph, its name, and the scores of the product as it is and mended."""
    true, off = photograph.alpha >= 0.5, OFF * len(photograph.pixels) / 192
    mattes = predict_mattes(segmenter, Image.fromarray(photograph.pixels), edges)
    for name, mask, origin, seen in (
        ("true, no segmenter", true, "mask", []),
        ("true", true, "mask", mattes),
        ("too large", dilate_by_disk(true, off), "mask", mattes),
        ("too small", erode_by_disk(true, off), "mask", mattes),
        ("segmenter", mattes[0] >= 0.5, "segmenter", mattes),
    ):
        if mask.any():
            cut = Product(photograph.pixels, feather_mask(mask), origin)
            yield name, score(photograph, cut), score(photograph, mend_product(cut, seen))


def measure(side: int, places: int) -> dict[str, dict[str, str]]:
    """Return "mask, photograph" -> measure -> its mean as it is, mended, and the difference."""
    segmenter = load_segmenter(ROOT / "models" / "segmenter")
    edges = read_section(EdgeSpec, "edges", load_sections())
    scores: dict[str, dict[str, list[tuple[FringeScore, FringeScore]]]] = {}
    for behind, photograph in iterate_photographs(side, places):
        for name, before, after in score_masks(photograph, segmenter, edges):
            of_mask = scores.setdefault(f"{name}, {behind}", {})
            of_mask.setdefault(photograph.product_id, []).append((before, after))
    return {name: summarize(list(of_mask.values())) for name, of_mask in sorted(scores.items())}


def summarize(by_product: list[list[tuple[FringeScore, FringeScore]]]) -> dict[str, str]:
    """Return the means of error and width as it is, mended, and the ratio of both."""
    figures = {}
    for name in ("error", "width"):
        means = np.array(
            [np.mean([[getattr(one, name) for one in pair] for pair in pairs], axis=0) for pairs in by_product]
        )
        before, after = (bootstrap_mean(column.tolist()) for column in means.T)
        figures[name] = f"{before:.2f} -> {after:.2f}, ratio {after.mean / max(before.mean, 1e-9):.2f}"
    return figures | {"products": str(len(by_product))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=192, help="pixels of a side of the photographs")
    parser.add_argument("--places", type=int, default=6, help="sizes in which each product is shown")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.side, arguments.places), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
