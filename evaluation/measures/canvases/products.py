"""Are all products of a scene there, and no other? What a segmenter recognizes against what was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.layout.formats import Rectangle
from canvas.pins.masks import Alpha, Mask

SEEN_SHARE = 0.5
"""Part of a product's core that must be recognized."""
EXTRA_SHARE = 0.25
"""Area of what is no product and yet recognized as one, over the smallest product's, from which it counts."""
MARGIN_SHARE = 1 / 32
"""Width round the given products that belongs to them, over the shorter side: shadows, an edge that is off."""


@dataclass(frozen=True, slots=True)
class ProductCount:
    """What is missing from a scene, and what is too much."""

    omitted: tuple[int, ...]  # numbers of products that are not recognized
    extra: tuple[Rectangle, ...]  # boxes of what is recognized as a product and was none


def count_products(recognized: Alpha, owners: NDArray[np.int8], alpha: Alpha) -> ProductCount:
    """Compare what a segmenter recognizes in an image with the products that were put there.

    Args:
        recognized: (H, W), the segmenter's.
        owners: (H, W), number of the product whose core a pixel is; below 0: of none.
        alpha: (H, W), of all products.
    """
    mask, numbers = recognized >= 0.5, range(int(owners.max()) + 1)
    areas = [int((owners == number).sum()) for number in numbers]
    assert areas, "a scene without products"
    omitted = [number for number in numbers if mask[owners == number].mean() < SEEN_SHARE]
    outside = mask & ~_grow(alpha > 0, round(MARGIN_SHARE * min(mask.shape)))
    return ProductCount(tuple(omitted), tuple(_find_boxes(outside, EXTRA_SHARE * min(areas))))


def _grow(mask: Mask, pixels: int) -> Mask:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel), bool)


def _find_boxes(mask: Mask, least: float) -> Sequence[Rectangle]:
    """Return the boxes of the parts of a mask that have so many pixels."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [
        Rectangle(int(top), int(left), int(height), int(width))
        for left, top, width, height, area in statistics[1:]
        if area >= least
    ]
