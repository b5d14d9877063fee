"""Does the border of a photograph show that was extended?

Only steps across the border count: an old border is a line, texture has steps in every direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canvas.layout.formats import Rectangle
from canvas.pins.images import Pixels

SURROUNDINGS = 4
"""How far on each side the border is compared with, over `reach`."""


def compute_border_gradient_ratio(image: Pixels, box: Rectangle, *, reach: int) -> float:
    """Compute how much steeper an image (H, W, 3) is across the border of a photograph in it than beside the border.

    It is the largest mean step between neighbours across one line within `reach` pixels of the border, over the mean
    step in the same direction further off, up to SURROUNDINGS times as far on both sides; the mean of the sides
    beyond which the image goes on. 1: no line shows; a chance maximum of a few lines of noise is a little above.

    Raises:
        ValueError: The photograph covers the image, so there is no old border, or everything is flat.
    """
    assert reach >= 1, reach
    height, width = image.shape[:2]
    down, across = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    vertical = np.abs(np.diff(image[:, across].astype(np.float64), axis=0)).mean(axis=(1, 2))  # between rows
    horizontal = np.abs(np.diff(image[down].astype(np.float64), axis=1)).mean(axis=(0, 2))  # between columns
    edges = [
        (vertical, box.top, height),
        (vertical, box.top + box.height, height),
        (horizontal, box.left, width),
        (horizontal, box.left + box.width, width),
    ]
    ratios = [_compare_steps(steps, edge, reach) for steps, edge, side in edges if 0 < edge < side]
    ratios = [ratio for ratio in ratios if np.isfinite(ratio)]
    if not ratios:
        raise ValueError("no border to measure: the photograph covers the image, or all round its border is flat")
    return float(np.mean(ratios))


def _compare_steps(steps: NDArray[np.float64], edge: int, reach: int) -> float:
    """Return the steepest line near `edge` over the mean of those further off; NaN where there are none, or flat."""
    away = np.abs(np.arange(len(steps)) - (edge - 1))  # the step before row `edge`
    near, far = steps[away <= reach], steps[(away > reach) & (away <= SURROUNDINGS * reach)]
    return float(near.max() / far.mean()) if far.size and far.mean() > 0 else float("nan")
