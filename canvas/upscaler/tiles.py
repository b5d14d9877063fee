"""Images enlarged tile by tile, so that memory does not grow with them beyond the images themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from canvas.pins.images import Pixels, bytes_to_tensor, tensor_to_bytes
from canvas.upscaler.diffusion import DiffusionUpscaler, draw_noise
from canvas.upscaler.loading import AnyUpscaler

TILE = 192
"""Pixels of the side of a tile of the small image, without what lies round it."""


def iterate_tiles(length: int, tile: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Yield, along one side, the pixels that a tile fills, and those that it reads: `reach` more on each inner end."""
    for first in range(0, length, tile):
        last = min(first + tile, length)
        yield slice(first, last), slice(max(0, first - reach), min(length, last + reach))


@torch.no_grad()
def enlarge(upscaler: AnyUpscaler, small: Pixels, product: Pixels, alpha: Pixels, tile: int = TILE) -> Pixels:
    """Enlarge one generated image to the size of `product`.

    It equals one pass over the whole up to rounding, if the upscaler's `reach` is all that it sees.

    Args:
        upscaler: In eval mode; it computes on its own device.
        small: Image (h, w, 3).
        product: Its colours at full size (s * h, s * w, 3), s one of the upscaler's factors.
        alpha: Its opacity (s * h, s * w), 0 to 255.
        tile: Pixels of the side of a tile of `small`.

    Returns:
        The image (s * h, s * w, 3), the product not yet put back.
    """
    factor = product.shape[0] // small.shape[0]
    large = np.empty_like(product)
    for rows, read_rows in iterate_tiles(small.shape[0], tile, upscaler.reach):
        for columns, read_columns in iterate_tiles(small.shape[1], tile, upscaler.reach):
            fine = _scale(read_rows, factor), _scale(read_columns, factor)
            noise = (draw_noise(*fine),) if isinstance(upscaler, DiffusionUpscaler) else ()
            part = upscaler(
                _to_tensor(small[read_rows, read_columns], upscaler),
                _to_tensor(product[fine], upscaler),
                (_to_tensor(alpha[fine][..., None], upscaler) + 1) / 2,
                *noise,
            )
            top = (rows.start - read_rows.start) * factor
            left = (columns.start - read_columns.start) * factor
            filled = _scale(rows, factor), _scale(columns, factor)
            height, width = (place.stop - place.start for place in filled)
            inner = part[0, :, top : top + height, left : left + width].float()
            large[filled] = tensor_to_bytes(inner).permute(1, 2, 0).cpu().numpy()
    return large


def _scale(place: slice, factor: int) -> slice:
    return slice(place.start * factor, place.stop * factor)


def _to_tensor(pixels: Pixels, upscaler: AnyUpscaler) -> torch.Tensor:
    """Return (h, w, c) as (1, c, h, w) in [-1, 1] on the upscaler's device, the channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(upscaler.device).permute(2, 0, 1)[None]
    return bytes_to_tensor(tensor).to(upscaler.dtype)
