"""Masks made visible. 1 is product."""

from __future__ import annotations

import numpy as np
from PIL import Image

from canvas.masks.errors import dilated, eroded
from canvas.pins.images import on_white
from canvas.pins.masks import Mask

LINE = (255, 0, 200)
"""A magenta that products and rooms hardly have."""


def outlined(image: Image.Image, mask: Mask) -> Image.Image:
    """The picture with the product's edge drawn in and the rest pale."""
    pixels = np.array(on_white(image), dtype=np.float32)
    pixels[~mask] = 0.45 * pixels[~mask] + 0.55 * 255
    if mask.any():
        pixels[dilated(mask, 1) & ~eroded(mask, 1)] = LINE
    return Image.fromarray(pixels.round().astype(np.uint8))
