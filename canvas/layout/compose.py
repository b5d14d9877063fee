"""Products put on one canvas: pixels and one alpha of all of them.

Where nothing is resized, pixels are those of the images. Where it is, they are Pillow's
`resize((width, height), Resampling.LANCZOS)` of the RGBA cut-out, cropped to the box round the product: one resampling
of the original, which anybody can repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.layout.formats import Rectangle
from canvas.layout.spec import Layout
from canvas.masks.composite import ALPHA_FLOOR
from canvas.pins.frames import Size
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, compute_box

BAND_SHARE = 1 / 32
"""Depth of the band inside a photograph's border in which it passes into what is generated, over its shorter side."""

NO_PRODUCT = -1


@dataclass(frozen=True, slots=True)
class Cutout:
    """Pixels of an image, (H, W, 3), and how much of each is product."""

    pixels: Pixels
    alpha: Alpha


@dataclass(frozen=True, slots=True)
class Composition:
    """A canvas with products on it, and nothing else yet."""

    pixels: Pixels
    alpha: Alpha
    owners: NDArray[np.int8]  # (H, W): number of the product whose core this is, from 0; NO_PRODUCT: of none
    parts: NDArray[np.int8]  # (H, W): likewise, its edge, too
    boxes: list[Rectangle]  # of each product, in their order
    factors: list[float]  # by which each was resized; 1: its pixels are the image's


def compose_products(cutouts: Sequence[Cutout], layout: Layout) -> Composition:
    """Put products on the layout's canvas, later ones over earlier ones.

    Raises:
        ValueError: In one sentence, if they do not fit, one is hidden or vanishes, or nothing is left to generate.
    """
    if layout.keeps_photograph:
        whole = [Rectangle(0, 0, *cutout.alpha.shape) for cutout in cutouts]
    else:
        whole = [_find_box(cutout.alpha) for cutout in cutouts]
    boxes = layout.place([(box.height, box.width) for box in whole])
    height, width = layout.canvas
    pixels, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
    owners = np.full((height, width), NO_PRODUCT, np.int8)
    parts = owners.copy()
    for number, (cutout, source, box) in enumerate(zip(cutouts, whole, boxes, strict=True)):
        if layout.keeps_photograph:
            placed_cutout = _extend_photograph(cutout, box, layout.canvas)
        else:
            placed_cutout = resize_cutout(Cutout(cutout.pixels[source.region], cutout.alpha[source.region]), box)
        if not (placed_cutout.alpha == 1).any():
            raise ValueError(
                f"product {number + 1} has no opaque pixel left at {box.width} x {box.height}: give it more room"
            )
        _lay_over(pixels[box.region], alpha[box.region], owners[box.region], placed_cutout, number)
        parts[box.region][placed_cutout.alpha > ALPHA_FLOOR] = number
    for number in range(len(cutouts)):
        if not (owners == number).any():
            raise ValueError(f"product {number + 1} is hidden by those given after it: move it, or give it later")
    if (alpha >= 0.5).all():
        raise ValueError("the products cover the canvas: nothing to generate, give a larger canvas")
    factors = [box.height / source.height for box, source in zip(boxes, whole, strict=True)]
    return Composition(pixels, alpha, owners, parts, boxes, factors)


def resize_cutout(cutout: Cutout, box: Rectangle) -> Cutout:
    """Return the cut-out at the size of `box`; of that size already: as it is."""
    if cutout.alpha.shape == (box.height, box.width):
        return cutout
    rgba = np.concatenate([cutout.pixels, _to_bytes(cutout.alpha)[..., None]], axis=-1)
    resized = np.asarray(Image.fromarray(rgba, "RGBA").resize((box.width, box.height), Image.Resampling.LANCZOS))
    return Cutout(resized[..., :3], resized[..., 3].astype(np.float32) / np.float32(255))


def fade_border(box: Rectangle, canvas: Size) -> Alpha:
    """Return the alpha of a photograph at `box`: 1, but towards the sides beyond which the canvas goes on it falls to
    almost 0, over BAND_SHARE of the shorter side."""
    depth = max(1, round(BAND_SHARE * min(box.height, box.width)))
    down = fade_ends(box.height, depth, box.top > 0, box.top + box.height < canvas[0])
    across = fade_ends(box.width, depth, box.left > 0, box.left + box.width < canvas[1])
    return np.minimum.outer(down, across)


def fade_ends(length: int, depth: int, first: bool, last: bool) -> NDArray[np.float32]:
    """Return `length` ones that fall over `depth` places towards the ends that are said to fade."""
    fading, whole = np.arange(1, length + 1, dtype=np.float32), np.full(length, depth + 1, np.float32)
    nearest = np.minimum(fading if first else whole, fading[::-1] if last else whole)
    return np.asarray(np.minimum(nearest / np.float32(depth + 1), 1))


def _extend_photograph(photograph: Cutout, box: Rectangle, canvas: Size) -> Cutout:
    """Return the whole photograph, faded towards the new canvas everywhere but on its product, which stays exact."""
    opaque = resize_cutout(Cutout(photograph.pixels, np.ones_like(photograph.alpha)), box)
    alpha = photograph.alpha
    if alpha.shape != opaque.alpha.shape:
        resized = Image.fromarray(_to_bytes(alpha)).resize((box.width, box.height), Image.Resampling.HAMMING)
        alpha = np.asarray(resized).astype(np.float32) / np.float32(255)
    return Cutout(opaque.pixels, np.maximum(fade_border(box, canvas), alpha))


def _find_box(alpha: Alpha) -> Rectangle:
    left, top, right, bottom = compute_box(alpha > ALPHA_FLOOR)
    return Rectangle(top, left, bottom - top, right - left)


def _to_bytes(alpha: Alpha) -> NDArray[np.uint8]:
    return np.rint(alpha * 255).astype(np.uint8)


def _lay_over(pixels: Pixels, alpha: Alpha, owners: NDArray[np.int8], cutout: Cutout, number: int) -> None:
    """Lay a cut-out over part of a canvas, in place (Porter and Duff 1984, "over").

    What is fully opaque is copied, and so is what lies on nothing; alpha up to ALPHA_FLOOR is no product.
    """
    upper_alpha = np.where(cutout.alpha > ALPHA_FLOOR, cutout.alpha, np.float32(0))
    copied = (upper_alpha == 1) | ((upper_alpha > 0) & (alpha == 0))
    mixed = (upper_alpha > 0) & ~copied
    over, under = upper_alpha[mixed], alpha[mixed]
    union = 1 - (1 - over) * (1 - under)  # 1 where `under` is, exactly
    share = (over / union)[:, None]
    pixels[mixed] = np.rint(share * cutout.pixels[mixed] + (1 - share) * pixels[mixed]).astype(np.uint8)
    pixels[copied] = cutout.pixels[copied]
    alpha[mixed], alpha[copied] = union, upper_alpha[copied]
    owners[upper_alpha > 0] = NO_PRODUCT
    owners[upper_alpha == 1] = number
