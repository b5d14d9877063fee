"""The passes of a canvas that is longer than any image that the denoiser was trained on.

A window as long as the longest trained frame moves along the canvas. It starts where most of the products are and goes
outwards; each further one shows OVERLAP of what is there and generates the rest, as in training with border masks.
"""

from __future__ import annotations

import math

from canvas.layout.formats import Rectangle
from canvas.pins.frames import Size
from canvas.pins.masks import Alpha

SLACK = 1.25
"""How much longer than the longest trained frame a canvas may be for one pass: up to a fifth of the frame is generated
and cut off, and the image is one piece."""
OVERLAP = 0.5
"""Share of a window that is there already, at least. Border masks in training keep 0.3 to 0.8 of a side."""
MAX_WINDOWS = 8
"""Most passes of a canvas: each window knows its neighbour alone, and what is wrong adds up."""


def plan_windows(canvas: Size, max_aspect: float) -> list[Rectangle]:
    """Return the windows along a canvas in their order on it; one: the whole canvas.

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
    starts = [round(number * (long - window) / (count - 1)) for number in range(count)]
    if canvas[1] > canvas[0]:
        return [Rectangle(0, start, short, window) for start in starts]
    return [Rectangle(start, 0, window, short) for start in starts]


def order_windows(windows: list[Rectangle], alpha: Alpha) -> list[Rectangle]:
    """Return the window with most product first, then its neighbours outwards, the nearer ones before."""
    if not windows:
        return []
    amounts = [int((alpha[window.region] >= 0.5).sum()) for window in windows]
    first = amounts.index(max(amounts))
    return [windows[place] for place in sorted(range(len(windows)), key=lambda place: (abs(place - first), place))]
