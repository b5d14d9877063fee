"""A product with its light, made by hand: what the tests of the room share."""

from __future__ import annotations

import numpy as np
from PIL import Image

from canvas.light.gain import GRID, GainGrid
from canvas.pins.images import Pixels


def build_product(height: int = 60, width: int = 48, brightest: int = 200) -> Image.Image:
    """An RGBA product: noise of at most `brightest` in an ellipse with a soft edge."""
    random = np.random.default_rng(height * width)
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot((rows - height / 2) / (height / 3), (columns - width / 2) / (width / 3))
    alpha = np.clip((1.2 - away) * 5, 0, 1)
    pixels = np.concatenate([random.integers(0, brightest, (height, width, 3)), 255 * alpha[..., None]], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def build_slope(left: float, right: float) -> GainGrid:
    """A grey log gain that runs evenly from the left column of nodes to the right one."""
    return np.broadcast_to(np.linspace(left, right, GRID)[None, :, None], (GRID, GRID, 3)).copy()


def build_background(size: tuple[int, int], seed: int = 0) -> Pixels:
    """A random background [H, W, 3] for an image of `size` (width, height)."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
