"""Where a product of any size and aspect stands in the picture that the model works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

V = TypeVar("V", np.uint8, np.float32)


@dataclass(frozen=True, slots=True)
class Frame:
    """The model's picture, and in it the rectangle that is the product image; pixels."""

    height: int
    width: int
    top: int
    left: int
    inner_height: int
    inner_width: int

    def placed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """`values` (H, W, ...) of the product image, averaged down (or interpolated up) into the frame; 0 around."""
        shrinks = self.inner_height * self.inner_width < values.shape[0] * values.shape[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(values, (self.inner_width, self.inner_height), interpolation=how)
        framed = np.zeros((self.height, self.width, *values.shape[2:]), np.float32)
        framed[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = small
        return framed

    def enlarged(self, values: NDArray[V], height: int, width: int) -> NDArray[V]:
        """The product image's part of `values` (h, w, ...), at its own size."""
        inner = values[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]
        if inner.shape[:2] == (height, width):
            return inner
        shrinks = height * width < self.inner_height * self.inner_width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(np.ascontiguousarray(inner), (width, height), interpolation=how).astype(
            values.dtype, copy=False
        )


def compute_frame(height: int, width: int, *, side: int, multiple: int, max_aspect: float) -> Frame:
    """A frame of about side x side pixels, both sides multiples of `multiple`, in the aspect of height x width.

    An aspect beyond `max_aspect`, which the model has not seen, gets a frame of that aspect with the product image
    in its middle; what is painted around it is cut off again. `max_aspect` 1: square frames only.
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
