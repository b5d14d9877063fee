"""The windows of a canvas that is longer than any image that the denoiser was trained on.

They have the length of the longest trained frame and overlap by OVERLAP; all are denoised at once
(canvas.denoiser.passes.windows).
"""

from __future__ import annotations

import math

from canvas.layout.formats import Rectangle
from canvas.pins.frames import Size

SLACK = 1.25
"""How much longer than the longest trained frame a canvas may be for one pass: up to a fifth of the frame is generated
and cut off, and the image is one piece."""
OVERLAP = 0.5
"""Share of a window that its neighbour shows, too, at least."""
MAX_WINDOWS = 8
"""Most windows of a canvas: each knows its neighbours alone, and what lies far apart has little in common."""


def plan_windows(canvas: Size, max_aspect: float) -> list[Rectangle]:
    """Return the windows along a canvas in their order on it; one: the whole canvas is one pass.

    Args:
        canvas: Height and width.
        max_aspect: Longest side over shortest of the frames that the denoiser was trained on.

    Raises:
        ValueError: In one sentence, for a canvas that takes more than MAX_WINDOWS.
    """
    long, short = max(canvas), min(canvas)
    if long <= SLACK * max_aspect * short:
        return [Rectangle(0, 0, *canvas)]
    window = round(max_aspect * short)
    count = 1 + math.ceil((long - window) / (window * (1 - OVERLAP)))
    if count > MAX_WINDOWS:
        longest = math.floor(10 * max_aspect * (1 + (MAX_WINDOWS - 1) * (1 - OVERLAP))) / 10
        raise ValueError(
            f"a canvas of {canvas[1]} x {canvas[0]} pixels is too long for this model: its longer side may have "
            f"{longest:g} times the shorter"
        )
    starts = spread_windows(long, window, count)
    if canvas[1] > canvas[0]:
        return [Rectangle(0, start, short, window) for start in starts]
    return [Rectangle(start, 0, window, short) for start in starts]


def spread_windows(length: int, window: int, count: int) -> list[int]:
    """Return the beginnings of `count` windows, two or more, that lie evenly along `length` and cover it."""
    return [round(number * (length - window) / (count - 1)) for number in range(count)]
