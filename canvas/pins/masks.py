"""Masks of products: 1 is product and is kept, 0 is background, in every mask of this project.

A mask is bool [h, w]; an alpha (matte) is float32 [h, w] in 0..1, the opacity of the product.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.images import encode_png

Mask = NDArray[np.bool_]
Alpha = NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskLimits:
    """When an alpha is product, and which masks are good enough to train on."""

    threshold: float  # alpha from which a pixel is product, 0..1
    min_part: float  # parts smaller than this fraction of the largest are specks and are dropped
    min_area: float  # of the picture, 0..1
    max_area: float  # likewise
    max_sides: int  # how many sides of the picture the product may touch, 0..4
    min_confidence: float  # 0..1, see `confidence`
    min_largest_part: float  # fraction of the product that its largest connected part must hold

    def __post_init__(self) -> None:
        for name in ("threshold", "min_part", "min_area", "max_area", "min_confidence", "min_largest_part"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"mask limit {name} is {value}: give a fraction from 0 to 1")
        if self.min_area >= self.max_area:
            raise ValueError(f"mask limit min_area is {self.min_area}: it must be below max_area, {self.max_area}")
        if not 0 <= self.max_sides <= 4:
            raise ValueError(f"mask limit max_sides is {self.max_sides}: a picture has 0 to 4 sides")


REJECTION_REASONS = ("empty", "too small", "too large", "touches the border", "several parts", "low confidence")
"""Why a mask is rejected; the first that applies, in this order."""


def threshold_alpha(alpha: Alpha, limits: MaskLimits) -> Mask:
    """The product: alpha at or above the threshold, without specks."""
    mask = alpha >= limits.threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:  # background and at most one part
        return mask
    areas = stats[:, cv2.CC_STAT_AREA]
    large = areas >= limits.min_part * areas[1:].max()
    large[0] = False
    return np.asarray(large[labels])


def find_rejection_reason(mask: Mask, alpha: Alpha, limits: MaskLimits) -> str | None:
    """The first of REASONS against training on this mask; None: it is good."""
    area = float(mask.mean())
    if not area:
        return "empty"
    if area < limits.min_area:
        return "too small"
    if area > limits.max_area:
        return "too large"
    if count_touched_sides(mask) > limits.max_sides:
        return "touches the border"
    if compute_largest_part(mask) < limits.min_largest_part:
        return "several parts"
    if compute_confidence(mask, alpha) < limits.min_confidence:
        return "low confidence"
    return None


def compute_confidence(mask: Mask, alpha: Alpha) -> float:
    """How sure the matte is of its own mask, 0..1: their soft IoU, sum(min) / sum(max).

    An empty mask is as sure as its most product-like pixel is not: 1 - max(alpha).
    """
    if not mask.any():
        return float(1 - alpha.max())
    return float(alpha[mask].sum() / (mask.sum() + alpha[~mask].sum()))


def compute_box(mask: Mask) -> Box | None:
    """x0, y0, x1, y1 of the product in pixels, ends exclusive; None: the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def count_touched_sides(mask: Mask) -> int:
    """How many sides of the picture the product reaches, 0..4."""
    return int(mask[0].any()) + int(mask[-1].any()) + int(mask[:, 0].any()) + int(mask[:, -1].any())


def compute_largest_part(mask: Mask) -> float:
    """The fraction of the product that its largest 8-connected part holds; 1.0 for an empty mask."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if areas.size else 1.0


def apply_guided_filter(alpha: Alpha, image: Image.Image, radius: int, epsilon: float) -> Alpha:
    """The matte with its edges moved to those of the picture, clipped to 0..1.

    The guided filter of He, Sun & Tang (2013, eq. 5, 6, 8) with the picture's luma, 0..1, as guide: `radius` in
    pixels; `epsilon` is the variance of luma below which the filter merely averages. An alpha of one value stays.
    """
    guide = np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(plane: NDArray[np.floating]) -> Alpha:
        return np.asarray(cv2.blur(plane, window, borderType=cv2.BORDER_REFLECT), dtype=np.float32)

    guide_mean, alpha_mean = mean(guide), mean(alpha)
    variance = mean(guide * guide) - guide_mean * guide_mean
    slope = (mean(guide * alpha) - guide_mean * alpha_mean) / (variance + np.float32(epsilon))
    offset = alpha_mean - slope * guide_mean
    return np.clip(mean(slope) * guide + mean(offset), 0, 1)


def encode_mask(mask: Mask) -> bytes:
    """1-bit PNG."""
    return encode_png(Image.fromarray(mask))


def encode_alpha(alpha: Alpha) -> bytes:
    """8-bit grey PNG."""
    return encode_png(Image.fromarray((alpha * 255).round().astype(np.uint8)))


def decode_mask(png: bytes) -> Mask:
    """The mask that `encode_mask` wrote, or a true alpha at one half."""
    return decode_alpha(png) >= 0.5


def decode_alpha(png: bytes) -> Alpha:
    """The alpha that `encode_alpha` wrote, float32 in 0..1. For pictures of our own making only."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
