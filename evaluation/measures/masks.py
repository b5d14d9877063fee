"""How well predicted masks agree with true ones. Masks are bool [h, w], True is product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.pins import tables
from canvas.pins.images import Pixels, decode_image
from canvas.pins.masks import Alpha, Mask, decode_mask
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.statistics.intervals import compute_mean_metrics

TOLERANCE = 0.008
"""Distance within which boundaries agree, as a fraction of the image's diagonal (DAVIS, Perazzi et al. 2016)."""
VISIBLE = 16
"""Levels of 255 by which a pixel of an edge is visibly wrong."""


@dataclass(frozen=True, slots=True)
class MaskScore:
    """One pin's mask against its truth."""

    pin_id: str
    split: str
    has_product: bool
    iou: float
    boundary_f: float


def score_mask(pin_id: str, split: str, predicted: Mask, truth: Mask) -> MaskScore:
    """Return the score of one predicted mask."""
    return MaskScore(pin_id, split, bool(truth.any()), iou(predicted, truth), boundary_f(predicted, truth))


def score_mask_table(masks: Path, truth: Path, split_of: Mapping[str, str]) -> Iterator[MaskScore]:
    """Score the masks of a table, in the order of pin_id; pins that truth does not know are left out."""
    true_alphas = tables.scan(truth).select("pin_id", "alpha").with_column_renamed("alpha", "truth")
    pairs = tables.scan(masks).select("pin_id", "mask").join(true_alphas, on="pin_id").sort("pin_id")
    for batch in pairs.to_arrow_iter(results_buffer_size=1):
        for row in batch.to_pylist():
            mask = decode_mask(row["mask"])
            yield score_mask(row["pin_id"], split_of[row["pin_id"]], mask, _decode_truth(row["truth"], mask))


def score_segmenter(
    segmenter: Segmenter,
    edges: EdgeSpec,
    pins: Path,
    truth: Path,
    split_of: Mapping[str, str],
    *,
    threshold: float,
    batch_size: int,
) -> Iterator[MaskScore]:
    """Segment pins whose product truth knows, and score the masks.

    Args:
        segmenter: On its device.
        edges: Of the filter that brings its matte to full size.
        pins: Table of the pins.
        truth: Table of their true alphas.
        split_of: pin_id -> split, of the pins to score.
        threshold: Alpha from which a pixel is product.
        batch_size: Images that go through the segmenter at once.
    """
    true_alphas = tables.read_column(truth, "alpha", split_of)
    for rows in tables.select_batches(pins, ["image"], true_alphas, batch_size):
        alphas = segmenter.predict_alphas([decode_image(row["image"]) for row in rows], edges)
        for pin_id, alpha in zip((row["pin_id"] for row in rows), alphas, strict=True):
            mask = alpha >= threshold
            yield score_mask(pin_id, split_of[pin_id], mask, _decode_truth(true_alphas[pin_id], mask))


def _decode_truth(png: bytes | None, mask: Mask) -> Mask:
    return np.zeros(mask.shape, bool) if png is None else decode_mask(png)


def iou(predicted: Mask, truth: Mask) -> float:
    """Return the intersection over union, 0..1; 1.0 if both are empty."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def boundary_f(predicted: Mask, truth: Mask, tolerance: float = TOLERANCE) -> float:
    """Return the F-measure of boundary pixels, 0..1 (Perazzi et al. 2016, section 4).

    A boundary pixel is matched if one of the other boundary lies within `tolerance` times the diagonal, at least one
    pixel. 1.0 if neither mask has a boundary, 0.0 if one alone has.
    """
    edges, true_edges = _find_boundary(predicted), _find_boundary(truth)
    if not edges.any() or not true_edges.any():
        return float(edges.any() == true_edges.any())
    reach = max(1.0, tolerance * float(np.hypot(*truth.shape)))
    precision = float((_compute_distances(true_edges)[edges] <= reach).mean())
    recall = float((_compute_distances(edges)[true_edges] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def compute_mask_metrics(scores: Iterable[MaskScore]) -> dict[str, dict[str, float]]:
    """Return IoU and boundary F of pins with a product, the share of empty images called empty, by split."""
    by_split = groupby(sorted(scores, key=lambda score: score.split), lambda score: score.split)
    return {split: _compute_split_metrics(list(members)) for split, members in by_split}


def compute_screening_metrics(scores: Iterable[MaskScore], reasons: Mapping[str, str | None]) -> dict[str, float]:
    """Compare the IoU of pins with a product that were accepted (no reason for rejection) and that were rejected."""
    products = [score for score in scores if score.has_product]
    accepted = [score.iou for score in products if reasons[score.pin_id] is None]
    rejected = [score.iou for score in products if reasons[score.pin_id] is not None]
    return compute_mean_metrics("iou_of_accepted", accepted) | compute_mean_metrics("iou_of_rejected", rejected)


def _compute_split_metrics(scores: Sequence[MaskScore]) -> dict[str, float]:
    products = [score for score in scores if score.has_product]
    empty = [score.iou for score in scores if not score.has_product]
    return {
        "pins_with_product": len(products),
        "pins_without": len(empty),
        **compute_mean_metrics("iou", [score.iou for score in products]),
        **compute_mean_metrics("boundary_f", [score.boundary_f for score in products]),
        **compute_mean_metrics("empty_right", empty),
    }


def _find_boundary(mask: Mask) -> Mask:
    """Return product pixels with a 4-neighbour of background; the image's border is none."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return mask & ~np.asarray(cv2.erode(mask.astype(np.uint8), cross), dtype=bool)


def _compute_distances(mask: Mask) -> NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


@dataclass(frozen=True, slots=True)
class FringeScore:
    """How far a product before a new background is from the truth along its edge."""

    error: float  # mean difference of a channel, levels of 255
    width: float  # pixels across the edge that are visibly wrong


def score_fringe(image: Pixels, truth: Pixels, alpha: Alpha, reach: int) -> FringeScore:
    """Score an image [h, w, 3] of a product whose true alpha is known, within `reach` pixels of its edge.

    Width is the area that is wrong by more than VISIBLE levels over the edge's length.
    """
    inside = alpha >= 0.5
    edge = _find_boundary(inside)
    near = _compute_distances(edge) <= reach
    difference = np.abs(image.astype(np.int16) - truth.astype(np.int16))[near]
    wrong = int((difference.max(-1) > VISIBLE).sum())
    return FringeScore(float(difference.mean()), wrong / max(1, int(edge.sum())))
