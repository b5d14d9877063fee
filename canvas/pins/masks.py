"""Masks of products: 1 is product and is kept, 0 is background, in every mask of this project."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from canvas.pins.images import STRIP_PIXELS, Pixels, encode_png, iterate_strips
from canvas.ranges import Share

Mask = NDArray[np.bool_]  # [h, w]
Alpha = NDArray[np.float32]  # [h, w], opacity of the product in 0..1; also called matte
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, ends exclusive


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskLimits:
    """When an alpha is product, and which masks are good enough to train on."""

    threshold: Share  # alpha from which a pixel is product
    min_part: Share  # parts smaller than this fraction of the largest are specks and are dropped
    min_area: Share  # smallest fraction of the image that a product covers
    max_area: Share  # largest fraction of the image that a product covers
    max_sides: Annotated[int, Ge(0), Le(4)]  # how many sides of the image the product may touch
    min_confidence: Share  # soft IoU of matte and mask
    min_largest_part: Share  # fraction of the product that its largest connected part must hold

    def __post_init__(self) -> None:
        if self.min_area >= self.max_area:
            raise ValueError(f"mask limit min_area is {self.min_area}: it must be below max_area, {self.max_area}")


REJECTION_REASONS = ("empty", "too small", "too large", "touches the border", "several parts", "low confidence")
"""Why a mask is rejected; the first that applies, in this order."""


def threshold_alpha(alpha: Alpha, limits: MaskLimits) -> Mask:
    """Return the product: alpha at or above the threshold, without specks."""
    mask = alpha >= limits.threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:  # background and at most one part
        return mask
    areas = stats[:, cv2.CC_STAT_AREA]
    large = areas >= limits.min_part * areas[1:].max()
    large[0] = False
    return np.asarray(large[labels])


def find_rejection_reason(mask: Mask, alpha: Alpha, limits: MaskLimits) -> str | None:
    """Return the first of REJECTION_REASONS against training on this mask; None: it is good."""
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
    """Compute how sure the matte is of its own mask, 0..1: their soft IoU, sum(min) / sum(max). An empty mask is as
    sure as its most product-like pixel is not: 1 - max(alpha)."""
    if not mask.any():
        return float(1 - alpha.max())
    return float(alpha[mask].sum() / (mask.sum() + alpha[~mask].sum()))


def compute_box(mask: Mask) -> Box:
    """Compute the box round the product of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert rows.size, "an empty mask has no box"
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blend_pixels(top: Pixels, alpha: Alpha, below: Pixels) -> Pixels:
    """Lay an image [H, W, 3] over another by `alpha`, in sRGB."""
    weight = alpha[..., None]
    return np.rint(weight * top + (1 - weight) * below).astype(np.uint8)


def count_touched_sides(mask: Mask) -> int:
    """Count the sides of the image that the product reaches, 0 to 4."""
    return int(mask[0].any()) + int(mask[-1].any()) + int(mask[:, 0].any()) + int(mask[:, -1].any())


def compute_largest_part(mask: Mask) -> float:
    """Compute the fraction of the product that its largest 8-connected part holds; 1.0 for an empty mask."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if areas.size else 1.0


def apply_guided_filter(alpha: Alpha, image: Image.Image, radius: int, epsilon: float) -> Alpha:
    """Move the edges of the matte to those of the image: guided filter of He, Sun & Tang (2013, eq. 5, 6, 8).

    The guide is the image's luma, 0..1; `radius` is in pixels; `epsilon` is the variance of luma below which the
    filter merely averages. An alpha of one value stays.
    """
    if alpha.size <= STRIP_PIXELS:
        return _filter_strip(alpha, image, radius, epsilon)
    filtered = np.empty_like(alpha)
    height, width = alpha.shape
    for rows in iterate_strips(height, width):
        top, bottom = max(0, rows.start - 2 * radius), min(height, rows.stop + 2 * radius)  # two means reach so far
        strip = _filter_strip(alpha[top:bottom], image.crop((0, top, width, bottom)), radius, epsilon)
        filtered[rows] = strip[rows.start - top : rows.stop - top]
    return filtered


def _filter_strip(alpha: Alpha, image: Image.Image, radius: int, epsilon: float) -> Alpha:
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
    """Encode a mask as 1-bit PNG."""
    return encode_png(Image.fromarray(mask))


def encode_alpha(alpha: Alpha) -> bytes:
    """Encode an alpha as 8-bit grey PNG."""
    return encode_png(Image.fromarray((alpha * 255).round().astype(np.uint8)))


def decode_mask(png: bytes) -> Mask:
    """Decode what `encode_mask` wrote, or a true alpha at one half."""
    return decode_alpha(png) >= 0.5


def decode_alpha(png: bytes) -> Alpha:
    """Decode what `encode_alpha` wrote; for images of our own making only."""
    with PngImageFile(io.BytesIO(png)) as image:  # `Image.open` has a limit of pixels
        return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
