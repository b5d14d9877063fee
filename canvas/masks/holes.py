"""Random masks to learn inpainting from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from canvas.pins.masks import Mask
from canvas.ranges import NonNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class HoleSpec:
    """How often each kind of hole comes; the rest of the probability is strokes."""

    everything: NonNegative  # share with nothing kept, so that the denoiser does not forget text-to-image
    boxes: NonNegative  # share with holes that are boxes
    borders: NonNegative  # share of outpainting: a box is kept, what surrounds it is generated

    def __post_init__(self) -> None:
        if sum(shares := (self.everything, self.boxes, self.borders)) > 1:
            raise ValueError(f"mask shares {shares} must add up to 1 or less; strokes get the rest")


def sample_mask(random: np.random.Generator, height: int, width: int, spec: HoleSpec) -> Mask:
    """Draw a mask [height, width] of one of the kinds of `spec`, with a hole of at least one pixel."""
    kind = random.random()
    if kind < spec.everything:
        return np.zeros((height, width), bool)
    if kind < spec.everything + spec.boxes:
        return ~sample_boxes(random, height, width)
    if kind < spec.everything + spec.boxes + spec.borders:
        return sample_box(random, height, width, 0.3, 0.8)
    return ~sample_strokes(random, height, width)


def sample_strokes(random: np.random.Generator, height: int, width: int) -> Mask:
    """Draw one to four thick polylines with round joints, as LaMa's large masks (Suvorov et al. 2022)."""
    canvas = np.zeros((height, width), np.uint8)
    side = min(height, width)
    for _ in range(random.integers(1, 5)):
        place = random.random(2) * (width, height)
        angle = random.random() * 2 * np.pi
        for _ in range(random.integers(1, 6)):
            angle += random.normal() * np.pi / 3
            reach = side * random.uniform(0.1, 0.5)
            following = place + reach * np.array([np.cos(angle), np.sin(angle)])
            thickness = max(1, round(side * random.uniform(0.1, 0.3)))
            ends = [tuple(int(value) for value in point) for point in (place, following)]
            cv2.line(canvas, ends[0], ends[1], 1, thickness)
            cv2.circle(canvas, ends[1], thickness // 2, 1, -1)
            place = np.clip(following, 0, (width - 1, height - 1))
    return canvas.astype(bool)


def sample_boxes(random: np.random.Generator, height: int, width: int) -> Mask:
    """Draw one to three boxes with sides of 0.2 to 0.7 of the image's."""
    boxes = np.zeros((height, width), bool)
    for _ in range(random.integers(1, 4)):
        boxes |= sample_box(random, height, width, 0.2, 0.7)
    return boxes


def sample_box(random: np.random.Generator, height: int, width: int, small: float, large: float) -> Mask:
    """Draw a box with sides of `small` to `large` of the image's, anywhere, also at its edges."""
    tall = max(1, round(height * random.uniform(small, large)))
    wide = max(1, round(width * random.uniform(small, large)))
    top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    canvas = np.zeros((height, width), bool)
    canvas[top : top + tall, left : left + wide] = True
    return canvas
