"""A segmenter's mistakes, simulated on true masks, so that a model trained on true masks meets them in time.

Boundaries off to either side, parts lost, background taken in: the boundary, false-negative and false-positive
perturbations of CascadePSP (Cheng et al. 2020, section 4.1), as in Mask Transfiner's and BrushNet's training sets.
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
from canvas.ranges import Share


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
