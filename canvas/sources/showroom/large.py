"""Renders at full size for the upscaler: pins keep their size and their bytes, these are drawn beside them.

A view that does not magnify the panorama at its centre takes in 76 degrees at 256 pixels and 115 at 512, so about 256
pixels a side is what a panorama of 1,024 has to teach at a camera's usual angles.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from canvas.sources.showroom.defects import RenderedImage
from canvas.sources.showroom.plan import GOLDEN, PinPlan
from canvas.sources.showroom.products import Product, load_products
from canvas.sources.showroom.render import load_panoramas, render_image
from canvas.sources.showroom.spec import SCENES

LARGE_ATTEMPTS = 100
"""Views tried for one render: of those as wide as these, few fit the held-out sector."""


def plan_large(
    products: tuple[Product, ...], side: int, count: int, seed: int, *, held_out: bool
) -> Iterator[tuple[PinPlan, np.random.Generator]]:
    """Plan `count` square renders of a product in a scene, and the draws of each.

    Args:
        products: All of them.
        side: Pixels.
        count: How many.
        seed: Of the draws; the same image comes at the same index, whatever `count` is.
        held_out: Whether products and views are those that pins of the train split never show.
    """
    split = "unseen_both" if held_out else "train"
    chosen = [product for product in products if product.held_out == held_out]
    for index in range(count):
        turn, place = divmod(index, len(chosen))
        product = chosen[place]
        cutout = product.cutouts[turn % len(product.cutouts)]
        scene = SCENES[index % len(SCENES)]
        plan = PinPlan(index, "in_scene", split, product, cutout, scene, (side, side), index * GOLDEN % 1)
        yield plan, np.random.default_rng([seed, 3, held_out, index])


def render_large(
    folder: Path, side: int, counts: tuple[int, int], seed: int, threads: int
) -> tuple[list[RenderedImage], list[RenderedImage]]:
    """Render squares of `side` pixels over the package files in `folder` (data/showroom).

    Args:
        counts: How many for training, and how many with products and views that are held out.

    Raises:
        ValueError: A package file is missing.
    """
    products, panoramas = load_products(folder), load_panoramas(folder)

    def render(planned: tuple[PinPlan, np.random.Generator]) -> RenderedImage:
        plan, rng = planned
        return render_image(panoramas, plan, rng, attempts=LARGE_ATTEMPTS)[0]

    with ThreadPoolExecutor(threads) as pool:
        train, held_out = (
            list(pool.map(render, plan_large(products, side, count, seed, held_out=is_held_out)))
            for count, is_held_out in zip(counts, (False, True), strict=True)
        )
    return train, held_out
