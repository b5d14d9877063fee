"""The frame: the model's own image, and where a product of any size and aspect stands in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canvas.inference.product import Product
from canvas.pins.images import bytes_to_tensor

V = TypeVar("V", np.uint8, np.float32)


@dataclass(frozen=True, slots=True)
class Frame:
    """The model's image, and in it the rectangle that is the product image; pixels."""

    height: int
    width: int
    top: int
    left: int
    inner_height: int
    inner_width: int

    def insert_product(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `values` (H, W, ...) of the product image, resized into the frame; 0 around."""
        framed = np.zeros((self.height, self.width, *values.shape[2:]), np.float32)
        inner = _resize(values, self.inner_height, self.inner_width, cv2.INTER_LINEAR)
        framed[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = inner
        return framed

    def extract_product(self, values: NDArray[V], height: int, width: int) -> NDArray[V]:
        """Return the product image's part of `values` (h, w, ...), at its own size."""
        inner = values[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]
        return _resize(inner, height, width, cv2.INTER_CUBIC)


def _resize(values: NDArray[V], height: int, width: int, enlarging: int) -> NDArray[V]:
    """Average `values` down, or interpolate them up by `enlarging`."""
    shrinks = height * width < values.shape[0] * values.shape[1]
    resized = cv2.resize(
        np.ascontiguousarray(values), (width, height), interpolation=cv2.INTER_AREA if shrinks else enlarging
    )
    return resized.astype(values.dtype, copy=False)


def compute_frame(height: int, width: int, *, side: int, multiple: int, max_aspect: float) -> Frame:
    """Return a frame of about side x side pixels, both sides multiples of `multiple`, in the aspect of height x width.

    An aspect beyond `max_aspect`, which the model has not seen, gets a frame of that aspect with the product image
    in its middle; what is generated around it is cut off again. `max_aspect` 1: square frames only.
    """
    assert side % multiple == 0, f"a model of {side} pixels works in steps of {multiple}"
    aspect = min(max(width / height, 1 / max_aspect), max_aspect)
    tall = max(multiple, round(side / math.sqrt(aspect) / multiple) * multiple)
    wide = max(multiple, round(side * math.sqrt(aspect) / multiple) * multiple)
    inner_tall, inner_wide = tall, wide
    if width / height > max_aspect:
        inner_tall = max(1, round(tall * max_aspect * height / width))
    elif height / width > max_aspect:
        inner_wide = max(1, round(wide * max_aspect * width / height))
    return Frame(tall, wide, (tall - inner_tall) // 2, (wide - inner_wide) // 2, inner_tall, inner_wide)


@dataclass(frozen=True, slots=True)
class FramedProduct:
    """A product in the model's frame, as tensors with batch 1: pixels in [-1, 1], mask and alpha in 0..1."""

    frame: Frame
    pixels: torch.Tensor
    mask: torch.Tensor
    alpha: torch.Tensor

    def to(self, device: torch.device | str) -> FramedProduct:
        """Return it on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("pixels", "mask", "alpha")})


def frame_product(product: Product, frame: Frame) -> FramedProduct:
    """Scale the product into `frame`, on the CPU. Raises ValueError if nothing of it is left there.

    Colours are averaged by alpha, so what lies outside of the product does not bleed into its edge.
    """
    alpha = frame.insert_product(product.alpha)
    pixels = frame.insert_product(product.pixels * product.alpha[..., None]) / np.maximum(alpha, 1e-6)[..., None]
    mask = alpha >= 0.5
    if not mask.any():
        raise ValueError(
            f"the product is too small: nothing is left of it at the model's {frame.width} x {frame.height} pixels, "
            "crop the image closer"
        )
    return FramedProduct(
        frame,
        bytes_to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]).clamp(-1, 1),
        torch.from_numpy(mask)[None, None].float(),
        torch.from_numpy(alpha)[None, None],
    )
