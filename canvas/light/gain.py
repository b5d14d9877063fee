"""A smooth gain on a product's pixels: a small grid of log gains in linear light, and how it is applied.

A grid holds GRID x GRID nodes of three channels. They lie evenly over a box, the corner nodes in its corners. Between
nodes the log gain is interpolated bilinearly, and beyond the box it is that of the box's border. So no pixel has a
larger gain, a steeper gradient or more of a tint than the nodes have.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canvas.pins.images import Pixels, iterate_strips
from canvas.pins.masks import Box, Mask, compute_box

GRID = 8

GainGrid = NDArray[np.float64]
"""Natural logarithms of gains [GRID, GRID, 3], rows from top to bottom; 0: unchanged."""

FloatPixels = NDArray[np.floating[Any]]


def srgb_to_linear(srgb: FloatPixels) -> NDArray[np.float32]:
    """Convert sRGB in 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(linear: FloatPixels) -> NDArray[np.float32]:
    """Convert linear light in 0..1 to sRGB (IEC 61966-2-1)."""
    power = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, power).astype(np.float32)


def interpolate_grid(grid: GainGrid, box: Box, window: Box) -> NDArray[np.float32]:
    """Return the log gain [h, w, 3] at the pixels of `window`, of a grid over `box`; both x0, y0, x1, y1."""
    left, top, right, bottom = box
    across = _compute_weights(np.arange(window[0], window[2]), left, right)
    down = _compute_weights(np.arange(window[1], window[3]), top, bottom)
    rows = np.tensordot(down, grid.astype(np.float32), axes=(1, 0))  # [h, GRID, 3]
    return np.ascontiguousarray(np.einsum("wg,hgc->hwc", across, rows, optimize=True))


def brighten(pixels: Pixels, log_gain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sRGB pixels [..., 3] times a gain in linear light; above 1 is more than 8 bits can show."""
    return _linear_levels()[pixels] * np.exp(log_gain)


def apply_gain(pixels: Pixels, grid: GainGrid, box: Box, inside: Mask) -> Pixels:
    """Return pixels [H, W, 3] times the gain of `grid` over `box`, rounded to 8 bits, in the bounding box of `inside`.

    What lies outside of that is a copy. A grid of zeros changes no value.
    """
    result = pixels.copy()
    for window, rows in iterate_windows(inside):
        linear = brighten(pixels[rows], interpolate_grid(grid, box, window))
        np.minimum(linear, 1, out=linear)
        result[rows] = np.rint(linear_to_srgb(linear) * 255).astype(np.uint8)
    return result


def iterate_windows(inside: Mask) -> list[tuple[Box, tuple[slice, slice]]]:
    """Return the bounding box of `inside` in strips, each as a box and as slices of rows and columns."""
    left, top, right, bottom = compute_box(inside)
    return [
        (
            (left, top + rows.start, right, top + rows.stop),
            (slice(top + rows.start, top + rows.stop), slice(left, right)),
        )
        for rows in iterate_strips(bottom - top, right - left)
    ]


def _compute_weights(places: NDArray[np.int64], start: int, stop: int) -> NDArray[np.float32]:
    """Return the weights of the nodes [n, GRID] at the middles of pixels, for nodes over the pixels start..stop."""
    along = np.clip((places + 0.5 - start) / (stop - start), 0, 1) * (GRID - 1)
    return np.maximum(0, 1 - np.abs(along[:, None] - np.arange(GRID))).astype(np.float32)


@cache
def _linear_levels() -> NDArray[np.float32]:
    """Return the linear light of each of the 256 levels."""
    return srgb_to_linear(np.arange(256) / 255)
