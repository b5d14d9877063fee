"""Masks to train on: random holes to learn inpainting from, and true masks with a segmenter's mistakes.

The mistakes are simulated, so that a model trained on true masks meets them in time. Boundaries off to either side,
parts lost, background taken in: the boundary, false-negative and false-positive perturbations of CascadePSP (Cheng et
al. 2020, section 4.1), as in Mask Transfiner's and BrushNet's training sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from canvas.pins.masks import Mask
from canvas.ranges import NonNegative, Share

HIDDEN_SHARES = (0.15, 0.65)
"""Bounds of the share of a side that lies outside of a photograph to be extended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskErrors:
    """How often each kind of error occurs (independent probabilities), and how large it is."""

    erode: Share  # probability that the boundary moves inwards
    dilate: Share  # probability that the boundary moves outwards
    cut: Share  # probability that a part is lost
    blob: Share  # probability that background is taken in
    reach: Annotated[float, Gt(0), Le(0.5)]  # largest erosion and dilation, in square roots of the mask's area


def simulate_errors(mask: Mask, errors: MaskErrors, rng: np.random.Generator) -> Mask:
    """Return the mask as a fallible segmenter would draw it; an empty one stays empty, another never becomes so."""
    if not mask.any():
        return mask
    reach = errors.reach * float(np.sqrt(mask.sum()))
    changes: tuple[tuple[float, Callable[[Mask], Mask]], ...] = (
        (errors.cut, lambda m: cut_part(m, rng)),
        (errors.blob, lambda m: add_blob(m, rng)),
        (errors.erode, lambda m: erode_by_disk(m, rng.uniform(0.5, max(1.0, reach)))),
        (errors.dilate, lambda m: dilate_by_disk(m, rng.uniform(0.5, max(1.0, reach)))),
    )
    for probability, change in changes:
        if rng.random() < probability and (changed := change(mask)).any():
            mask = changed
    return mask


def erode_by_disk(mask: Mask, radius: float) -> Mask:
    """Remove the pixels closer than `radius` to the background; the image's border is no background."""
    return np.asarray(cv2.erode(mask.astype(np.uint8), _make_disk(radius)), dtype=bool)


def dilate_by_disk(mask: Mask, radius: float) -> Mask:
    """Add the pixels closer than `radius` to the product."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _make_disk(radius)), dtype=bool)


def cut_part(mask: Mask, rng: np.random.Generator) -> Mask:
    """Cut off 5 to 30 % of the product along a straight line in any direction."""
    y, x = np.nonzero(mask)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    rest = mask.copy()
    rest[y, x] = along <= np.quantile(along, 1 - rng.uniform(0.05, 0.3))
    return rest


def add_blob(mask: Mask, rng: np.random.Generator) -> Mask:
    """Add an ellipse of background, centred on the product's edge, of 5 to 20 % of its area."""
    edge_y, edge_x = np.nonzero(mask & ~erode_by_disk(mask, 1))
    if not edge_y.size:  # the product fills the image
        return mask
    at = int(rng.integers(edge_y.size))
    area = rng.uniform(0.05, 0.2) * mask.sum() * 2  # half of it lies on the product
    stretch = rng.uniform(0.5, 2.0)
    axes = (max(1, round(np.sqrt(area / np.pi * stretch))), max(1, round(np.sqrt(area / np.pi / stretch))))
    canvas = mask.astype(np.uint8)
    cv2.ellipse(canvas, (int(edge_x[at]), int(edge_y[at])), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return canvas.astype(bool)


def _make_disk(radius: float) -> NDArray[np.uint8]:
    reach = max(1, int(np.ceil(radius)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= max(radius, 1.0) ** 2, dtype=np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class HoleSpec:
    """How often each kind of hole comes; the rest of the probability is strokes."""

    everything: NonNegative  # share with nothing kept, so that the denoiser does not forget text-to-image
    boxes: NonNegative  # share with holes that are boxes
    borders: NonNegative  # share of outpainting: a photograph is kept, what it is extended by is generated

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
        return sample_photograph(random, np.zeros((height, width), bool))
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


def sample_photograph(random: np.random.Generator, product: Mask) -> Mask:
    """Draw the rectangle of a photograph that is extended to an image of the size of `product` [height, width].

    It is as wide as the image, as tall, or neither; what is hidden lies on one side or on both. The product is in it,
    even if then less is hidden, or nothing.
    """
    kind = random.integers(3)
    places = []
    for axis, is_extended in enumerate((kind != 0, kind != 1)):
        size, known = product.shape[axis], np.flatnonzero(product.any(axis=1 - axis))
        hidden = size * random.uniform(*HIDDEN_SHARES) * is_extended
        before = hidden * random.choice([0.0, 1.0, random.random()])
        first, last = round(before), size - round(hidden - before)
        places.append(slice(min(first, *known[:1], size - 1), max(last, *(known[-1:] + 1), first + 1)))
    canvas = np.zeros(product.shape, bool)
    canvas[tuple(places)] = True
    return canvas


def sample_box(random: np.random.Generator, height: int, width: int, small: float, large: float) -> Mask:
    """Draw a box with sides of `small` to `large` of the image's, anywhere, also at its edges."""
    tall = max(1, round(height * random.uniform(small, large)))
    wide = max(1, round(width * random.uniform(small, large)))
    top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    canvas = np.zeros((height, width), bool)
    canvas[top : top + tall, left : left + wide] = True
    return canvas
