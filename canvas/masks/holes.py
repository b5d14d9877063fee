"""Random masks to learn inpainting from: what is kept and what is painted. Masks: True = keep."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from canvas.pins.masks import Mask


@dataclass(frozen=True, kw_only=True, slots=True)
class HoleSpec:
    """How often each kind of hole comes; the rest of the probability is strokes."""

    everything: float  # nothing is kept, so that the denoiser does not forget text-to-image
    boxes: float  # share
    borders: float  # outpainting: a box is kept, what surrounds it is painted

    def __post_init__(self) -> None:
        shares = (self.everything, self.boxes, self.borders)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"mask shares {shares} must be 0 or more and add up to 1 or less; strokes get the rest")


def sample_mask(random: np.random.Generator, height: int, width: int, spec: HoleSpec) -> Mask:
    """A mask (height, width) of one of the kinds of `spec`; at least one pixel is to be painted."""
    kind = random.random()
    if kind < spec.everything:
        return np.zeros((height, width), bool)
    if kind < spec.everything + spec.boxes:
        return ~sample_boxes(random, height, width)
    if kind < spec.everything + spec.boxes + spec.borders:
        return sample_inner_box(random, height, width)
    return ~sample_strokes(random, height, width)


def sample_strokes(random: np.random.Generator, height: int, width: int) -> Mask:
    """One to four thick polylines with round joints, as LaMa's large masks (Suvorov et al. 2022). True = under one."""
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
    """One to three boxes with sides of 0.2 to 0.7 of the picture's. True = inside one."""
    canvas = np.zeros((height, width), bool)
    for _ in range(random.integers(1, 4)):
        top, left, bottom, right = _sample_box(random, height, width, 0.2, 0.7)
        canvas[top:bottom, left:right] = True
    return canvas


def sample_inner_box(random: np.random.Generator, height: int, width: int) -> Mask:
    """A box with sides of 0.3 to 0.8 of the picture's, anywhere, also at its edges. True = inside."""
    canvas = np.zeros((height, width), bool)
    top, left, bottom, right = _sample_box(random, height, width, 0.3, 0.8)
    canvas[top:bottom, left:right] = True
    return canvas


def _sample_box(
    random: np.random.Generator, height: int, width: int, small: float, large: float
) -> tuple[int, int, int, int]:
    tall = max(1, round(height * random.uniform(small, large)))
    wide = max(1, round(width * random.uniform(small, large)))
    top = int(random.integers(height - tall + 1))
    left = int(random.integers(width - wide + 1))
    return top, left, top + tall, left + wide
