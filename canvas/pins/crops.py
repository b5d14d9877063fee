"""Random square crops, so that each epoch sees other pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (h, w, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSpec:
    """How a picture varies from epoch to epoch: a square crop of it, at random."""

    zoom: float  # the smallest crop holds 1 / zoom of the shorter side
    mirror: bool  # half of the crops are flipped

    def __post_init__(self) -> None:
        if not 1 <= self.zoom <= 4:
            raise ValueError(f"crops.zoom is {self.zoom}: give 1 (no zoom) to 4")


def crop_random_square(picture: Pixels, side: int, crops: CropSpec, rng: np.random.Generator) -> Pixels:
    """A random square of `picture`, scaled to `side`."""
    short = min(picture.shape[:2])
    window = round(short / rng.uniform(1, crops.zoom))
    top = int(rng.integers(picture.shape[0] - window + 1))
    left = int(rng.integers(picture.shape[1] - window + 1))
    square = picture[top : top + window, left : left + window]
    if crops.mirror and rng.random() < 0.5:
        square = square[:, ::-1]
    how = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(square), (side, side), interpolation=how), dtype=np.uint8)
