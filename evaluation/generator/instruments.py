"""How good the instruments are that candidates are measured with: the reward model and the segmenter.

They are checked where the answer is known: on held-out pins. A challenger brings both, and one that broke them would
otherwise be measured by what it broke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.masks import Mask, decode_mask
from canvas.pins.products import ProductPin
from canvas.reward.comparisons import render_variant, sample_real_comparisons
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.model import RewardModel, predict_scores
from canvas.reward.product_views import ProductView, resize_bilinear
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator.background_scores import measure_growth
from evaluation.measures.masks import iou
from evaluation.statistics.intervals import compute_mean_metrics

THRESHOLD = 0.5
"""Alpha from which a pixel is product."""


def measure_reward_accuracy(
    reward: RewardModel, pins: Sequence[ProductPin], *, side: int, each: int, seed: int, batch_size: int
) -> dict[str, float]:
    """Return how often a real image gets a higher score than its corrupted self, by question; a tie is half right.

    A reward model that says the same of every image has 0.5. Intervals resample pins.

    Args:
        side: Pixels of the squares that images are corrupted in.
        each: Comparisons of every kind of corruption, at most.
        seed: Of the corruptions.
    """
    views = [
        ProductView(pin.pin_id, pin.product_id, "", resize_bilinear(pin.image, side), mask, "")
        for pin in pins
        if (mask := _resize_mask(pin.mask, side)).any()
    ]
    pairs = [(kind, pair) for kind in CORRUPTIONS for pair in sample_real_comparisons(views, kind, each, seed)]
    if not pairs:
        return {}
    images = [
        render_variant(views[pair.view], variant, ()) for _, pair in pairs for variant in (pair.first, pair.second)
    ]
    shown = [views[pair.view] for _, pair in pairs for _ in range(2)]
    scores = predict_scores(
        reward,
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([view.pixels for view in shown])).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([view.mask for view in shown]))[:, None],
        batch_size=batch_size,
    )
    metrics: dict[str, float] = {"pairs": len(pairs)}
    for question, values in scores.items():
        by_pin: dict[int, list[float]] = {}
        for (kind, pair), (first, second) in zip(pairs, values.view(-1, 2).tolist(), strict=True):
            if question == "overall" or question in CORRUPTIONS[kind].hurts:
                gain = (first - second) * (1 if pair.first.kind is None else -1)
                by_pin.setdefault(pair.view, []).append(0.5 if gain == 0 else float(gain > 0))
        metrics |= compute_mean_metrics(f"{question}_accuracy", [float(np.mean(own)) for own in by_pin.values()])
    return metrics


def measure_segmenter_quality(
    segmenter: Segmenter,
    edges: EdgeSpec,
    pins: Sequence[ProductPin],
    truth: Path,
    reference: Segmenter | None,
    batch_size: int,
) -> dict[str, float]:
    """Return how well products are found: IoU where truth is known, else growth and loss by the reference if any."""
    true_alphas = tables.read_column(truth, "alpha", {pin.pin_id for pin in pins})
    true_masks = {pin_id: decode_mask(alpha) for pin_id, alpha in true_alphas.items() if alpha is not None}
    if true_masks:
        known = [pin for pin in pins if pin.pin_id in true_masks]
        masks = _find_products(segmenter, edges, known, batch_size)
        return compute_mean_metrics("iou", [iou(masks[pin.pin_id], true_masks[pin.pin_id]) for pin in known])
    if reference is None:
        return {}
    expected, masks = (_find_products(network, edges, pins, batch_size) for network in (reference, segmenter))
    growth = [measure_growth(mask, masks[pin_id]) for pin_id, mask in expected.items() if mask.any()]
    extensions, erosions = zip(*growth, strict=True) if growth else ((), ())
    return compute_mean_metrics("extension", extensions) | compute_mean_metrics("erosion", erosions)


def _find_products(
    segmenter: Segmenter, edges: EdgeSpec, pins: Sequence[ProductPin], batch_size: int
) -> Mapping[str, Mask]:
    masks: dict[str, Mask] = {}
    for first in range(0, len(pins), batch_size):
        batch = pins[first : first + batch_size]
        alphas = segmenter.predict_alphas([pin.image for pin in batch], edges)
        masks |= {pin.pin_id: alpha >= THRESHOLD for pin, alpha in zip(batch, alphas, strict=True)}
    return masks


def _resize_mask(mask: Mask, side: int) -> Mask:
    return resize_bilinear(Image.fromarray(mask.astype(np.uint8) * 255), side) >= 128
