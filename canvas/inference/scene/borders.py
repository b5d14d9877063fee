"""The border of a photograph that is extended: what is generated goes on in the photograph's colours.

A denoiser goes on with what it sees, but not to the last level of brightness, and a step of a few levels along a
straight line is seen. So what is generated gets an offset that is, at the border, the step between both, and changes
smoothly from there: seamless cloning (Pérez et al. 2003), whose harmonic membrane is spread here by pull-push (Gortler
et al. 1996, section 3.5) as cheaply as an image pyramid.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.pins.images import Pixels
from canvas.pins.masks import Mask

STEP_REACH = 1.5
"""Standard deviation, in pixels of the model's frame, of the means on both sides of the border."""
ALONG_REACH = 3.0
"""The same of the steps along the border: what varies more quickly is texture."""
SPREAD = 32.0
"""Levels of 255 by which a step may differ from most: others are edges of things that end or go on at the border."""
LEAST_WEIGHT = 0.05
"""Less counts as nothing."""
FADE_SHARE = 0.5
"""Distance from the border at which the offset is 1/e, over the frame's shorter side."""

Plane = NDArray[np.float32]


def continue_photograph(generated: Pixels, photograph: Pixels, is_photograph: Mask) -> Pixels:
    """Return the photograph where `is_photograph`, and round it what was generated, without a step at the border.

    Args:
        generated: (h, w, 3), of the whole frame.
        photograph: (h, w, 3); what it is elsewhere does not matter.
        is_photograph: (h, w).
    """
    if is_photograph.all() or not is_photograph.any():
        return generated
    inside, outside = is_photograph.astype(np.float32), 1 - is_photograph.astype(np.float32)
    near, far = (
        _blur_weighted(pixels.astype(np.float32), weight, STEP_REACH)
        for pixels, weight in ((photograph, inside), (generated, outside))
    )
    away = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ring, steps = ((away > 0) & (away <= 2 * STEP_REACH)).astype(np.float32), near - far
    odd = np.abs(steps - np.median(steps[ring > 0], axis=0)).max(-1)
    ring *= np.exp(-((odd / SPREAD) ** 2))
    ring[ring < LEAST_WEIGHT] = 0
    steps = _blur_weighted(steps, ring, ALONG_REACH)
    offset = fill_smoothly(steps, ring) * np.exp(-away / (FADE_SHARE * min(is_photograph.shape)))[..., None]
    continued = np.clip(np.rint(generated + offset), 0, 255).astype(np.uint8)
    return np.where(is_photograph[..., None], photograph, continued)


def fill_smoothly(values: Plane, weights: Plane) -> Plane:
    """Return `values` (h, w, 3) where `weights` (h, w) are 1, and between and beyond them a smooth continuation.

    Pull: means over ever larger areas of what is known. Push: each pixel takes what its own area lacks from the next
    larger one.
    """
    height, width = weights.shape
    if min(height, width) <= 2 or weights.all():
        mean = (values * weights[..., None]).sum((0, 1)) / max(float(weights.sum()), 1e-6)
        return np.where(weights[..., None] > 0, values, mean).astype(np.float32)
    size = (width + 1) // 2, (height + 1) // 2
    share = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(values * weights[..., None], size, interpolation=cv2.INTER_AREA)
    coarse = fill_smoothly(
        np.asarray(sums / np.maximum(share, 1e-6)[..., None], np.float32), (share > 0).astype(np.float32)
    )
    larger = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(weights[..., None] * values + (1 - weights[..., None]) * larger, np.float32)


def _blur_weighted(values: Plane, weights: Plane, reach: float) -> Plane:
    """Return Gaussian means of `values` (h, w, 3) over what `weights` (h, w) counts; 0 where nothing counts."""
    total = cv2.GaussianBlur(values * weights[..., None], (0, 0), reach)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(weights, (0, 0), reach), 1e-4)[..., None], np.float32)
