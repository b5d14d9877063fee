"""Random masks to learn inpainting from: what is kept and what is painted. Masks: True = keep."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSpec:
    """How often each kind of hole comes; the rest of the probability is strokes."""

    everything: float  # nothing is kept, so that the denoiser does not forget text-to-image
    boxes: float
    borders: float  # outpainting: a box is kept, what surrounds it is painted

    def __post_init__(self) -> None:
        shares = (self.everything, self.boxes, self.borders)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"mask shares {shares} must be 0 or more and add up to 1 or less; strokes get the rest")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskErrorSpec:
    """Errors of a segmenter, put into true product masks so that the denoiser does not trust their edges."""

    shift: float  # largest erosion or dilation, as a fraction of the shorter side
    cut: float  # probability that a bite is missing


def random_mask(random: np.random.Generator, height: int, width: int, spec: MaskSpec) -> Mask:
    """A mask (height, width) of one of the kinds of `spec`; at least one pixel is to be painted."""
    kind = random.random()
    if kind < spec.everything:
        return np.zeros((height, width), bool)
    if kind < spec.everything + spec.boxes:
        return ~boxes(random, height, width)
    if kind < spec.everything + spec.boxes + spec.borders:
        return inner_box(random, height, width)
    return ~strokes(random, height, width)


def strokes(random: np.random.Generator, height: int, width: int) -> Mask:
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


def boxes(random: np.random.Generator, height: int, width: int) -> Mask:
    """One to three boxes with sides of 0.2 to 0.7 of the picture's. True = inside one."""
    canvas = np.zeros((height, width), bool)
    for _ in range(random.integers(1, 4)):
        top, left, bottom, right = _box(random, height, width, 0.2, 0.7)
        canvas[top:bottom, left:right] = True
    return canvas


def inner_box(random: np.random.Generator, height: int, width: int) -> Mask:
    """A box with sides of 0.3 to 0.8 of the picture's, anywhere, also at its edges. True = inside."""
    canvas = np.zeros((height, width), bool)
    top, left, bottom, right = _box(random, height, width, 0.3, 0.8)
    canvas[top:bottom, left:right] = True
    return canvas


def disturbed(random: np.random.Generator, mask: Mask, spec: MaskErrorSpec) -> Mask:
    """A product mask (H, W) as a segmenter might give it: eroded or dilated, sometimes with a bite cut out of it.

    Never empty unless `mask` is: an error that would leave nothing is not made.
    """
    side = min(mask.shape)
    radius = round(random.uniform(-1, 1) * spec.shift * side)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(radius) + 1,) * 2)
    change = cv2.erode if radius < 0 else cv2.dilate
    found = change(mask.astype(np.uint8), element).astype(bool)
    if random.random() < spec.cut and mask.any():
        rows, columns = np.nonzero(mask)
        edge = random.integers(len(rows))
        bite = np.zeros(mask.shape, np.uint8)
        size = max(1, round(np.sqrt(mask.sum()) * random.uniform(0.1, 0.3)))
        cv2.circle(bite, (int(columns[edge]), int(rows[edge])), size, 1, -1)
        found &= ~bite.astype(bool)
    return found if found.any() else mask


def _box(random: np.random.Generator, height: int, width: int, small: float, large: float) -> tuple[int, int, int, int]:
    tall = max(1, round(height * random.uniform(small, large)))
    wide = max(1, round(width * random.uniform(small, large)))
    top = int(random.integers(height - tall + 1))
    left = int(random.integers(width - wide + 1))
    return top, left, top + tall, left + wide
