"""Sizes of a canvas: in pixels, or by the name of a format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from canvas.pins.images import DEFAULT_LIMITS

FORMATS: Mapping[str, tuple[int, int]] = {
    "story": (1080, 1920),  # 9:16
    "pin": (1000, 1500),  # 2:3
    "square": (1080, 1080),
    "banner": (1500, 500),  # 3:1
}
"""Name -> width and height in pixels."""

MIN_SIDE = 16


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Part of a canvas or an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.height, self.width

    @property
    def region(self) -> tuple[slice, slice]:
        """Return the rows and columns, to index pixels with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def parse_canvas(text: str, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> tuple[int, int]:
    """Return height and width of "1080x1920", width first, or of a name in FORMATS.

    Raises:
        ValueError: In one sentence, for what is neither, and for a canvas that is too small or too large.
    """
    if text in FORMATS:
        width, height = FORMATS[text]
    elif match := re.fullmatch(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})", text.strip()):  # noqa: RUF001
        width, height = int(match[1]), int(match[2])
    else:
        raise ValueError(f"the canvas {text!r} is not understood: give WIDTHxHEIGHT or {', '.join(FORMATS)}")
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"a canvas of {width} x {height} pixels is too small: give {MIN_SIDE} or more a side")
    if width * height > max_pixels:
        raise ValueError(f"a canvas of {width} x {height} pixels exceeds the limit of {max_pixels}: give a smaller one")
    return height, width
