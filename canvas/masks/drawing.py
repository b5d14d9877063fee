"""Masks made visible. 1 is product."""

from __future__ import annotations

import numpy as np
from PIL import Image

from canvas.masks.errors import dilate_by_disk, erode_by_disk
from canvas.pins.images import composite_on_white
from canvas.pins.masks import Mask

LINE = (255, 0, 200)
"""A magenta that products and rooms hardly have."""


def draw_outline(image: Image.Image, mask: Mask) -> Image.Image:
    """The picture with the product's edge drawn in and the rest pale."""
    pixels = np.array(composite_on_white(image), dtype=np.float32)
    pixels[~mask] = 0.45 * pixels[~mask] + 0.55 * 255
    if mask.any():
        pixels[dilate_by_disk(mask, 1) & ~erode_by_disk(mask, 1)] = LINE
    return Image.fromarray(pixels.round().astype(np.uint8))
