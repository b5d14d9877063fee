"""Does an image repeat itself? A canvas that is generated in parts may show the same thing in each of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.pins.images import Pixels

SHORT_SIDE = 64
"""Pixels of the shorter side at which images are compared: forms count, not grain."""
PATCH = 16
FLAT = 4.0
"""Standard deviation in levels of 255, below which a patch shows nothing that could be repeated."""


def compute_repetition(image: Pixels) -> float:
    """Compute how alike the parts of an image (H, W, 3) are that lie far apart, about 0 to 1: copies.

    It is the mean, over the patches of a quarter of the shorter side, of the largest normalised cross-correlation
    (Lewis 1995) with any place at least half of the shorter side away. Textures have some of their own: compare with
    real images of the same aspect.

    Raises:
        ValueError: All of the image is flat.
    """
    grey = _shrink(image)
    values = []
    for top in range(0, grey.shape[0] - PATCH + 1, PATCH):
        for left in range(0, grey.shape[1] - PATCH + 1, PATCH):
            patch = grey[top : top + PATCH, left : left + PATCH]
            if patch.std() < FLAT:
                continue
            alike = cv2.matchTemplate(grey, patch, cv2.TM_CCOEFF_NORMED)
            rows, columns = np.ogrid[: alike.shape[0], : alike.shape[1]]
            far = np.maximum(abs(rows - top), abs(columns - left)) >= SHORT_SIDE // 2
            values.append(float(np.nan_to_num(alike[far], posinf=0, neginf=0).max()))
    if not values:
        raise ValueError("no repetition to measure: all of the image is flat")
    return float(np.mean(values))


def _shrink(image: Pixels) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = max(SHORT_SIDE, round(width * scale)), max(SHORT_SIDE, round(height * scale))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(shrunk, cv2.COLOR_RGB2GRAY), np.float32)
