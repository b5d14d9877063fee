"""The laws of the band, where product and background are blended and the product's mask may have been mended.

Within it the product's colours are estimated. So it must be narrow, and it must lie along the edge: of the product, and
of its mask, where that was handed in.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.light.laws import Check
from canvas.pins.masks import Alpha, Mask

REACH_SHARE = 0.02
"""Share of the image's shorter side: how far from the mask's edge anything may be mended. A segmenter of 128 pixels
a side is two and a half of its pixels off then."""
MIN_REACH = 4
"""The same in pixels, at least."""


def compute_reach(shape: tuple[int, ...]) -> int:
    """Return how many pixels from the mask's edge anything may be mended, in an image [H, W, ...]."""
    return max(MIN_REACH, round(REACH_SHARE * min(shape[:2])))


def check_band(core: Mask, band: Mask, handed_in: Alpha | None) -> list[Check]:
    """Measure how far, in pixels, the band and what was mended lie from the edge.

    Args:
        core: Pixels that are product alone.
        band: Those that are blended; what is neither is background.
        handed_in: The alpha that the product's image or its mask gives; None: nothing gives it.
    """
    reach = compute_reach(core.shape)
    narrow = Check("band", _find_farthest(band, ~(core | band)), 2 * reach + 1)
    if handed_in is None:
        return [narrow]
    inside = handed_in > 0
    shrunk = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edge = (inside & ~shrunk) | (inside & (handed_in < 1))
    return [narrow, Check("mended", _find_farthest(band | (core != (handed_in == 1)), edge), reach + 1)]


def _find_farthest(pixels: Mask, places: Mask) -> float:
    """Return the largest distance of `pixels` to the nearest of `places`, in pixels; 0 for none."""
    return float(_measure_distances(places)[pixels].max()) if pixels.any() else 0.0


def _measure_distances(places: Mask) -> NDArray[np.float32]:
    """Return each pixel's distance to the nearest of `places`; infinite where there is none."""
    if not places.any():
        return np.full(places.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~places).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
