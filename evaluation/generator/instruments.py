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

from canvas.inference.selection import select_ranking_score
from canvas.pins import tables
from canvas.pins.captions import format_caption
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask, decode_mask
from canvas.pins.products import ProductPin
from canvas.reward.comparisons import render_variant, sample_real_comparisons
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.model import ProductImages
from canvas.reward.preference import Reward
from canvas.reward.product_views import ProductView, resize_bilinear
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator.background_scores import measure_growth
from evaluation.measures.masks import iou
from evaluation.statistics.intervals import compute_mean_metrics

THRESHOLD = 0.5
"""Alpha from which a pixel is product."""


def measure_reward_accuracy(
    reward: Reward, pins: Sequence[ProductPin], *, side: int, each: int, seed: int, batch_size: int
) -> dict[str, float]:
    """Return how often a real image gets a higher score than its corrupted self, by question, and as `prompt_accuracy`
    how often a higher one with the background that it shows than with another pin's; a tie is half right.

    A reward that says the same of every image has 0.5. One that reads prompts alone is not asked about corruptions: its
    overall accuracy is that with prompts. Intervals resample pins.

    Args:
        reward: Of any kind.
        pins: Real ones.
        side: Pixels of the squares that images are corrupted in.
        each: Comparisons of every kind of corruption, at most.
        seed: Of the corruptions, and of the choice of other backgrounds.
        batch_size: Images at once.
    """
    masked_pins = [(pin, mask) for pin in pins if (mask := _resize_mask(pin.mask, side)).any()]
    views = [
        ProductView(pin.pin_id, pin.product_id, "", resize_bilinear(pin.image, side), mask, pin.background)
        for pin, mask in masked_pins
    ]
    prompted = _compare_backgrounds(reward, views, [pin.product for pin, _ in masked_pins], seed, batch_size)
    metrics = compute_mean_metrics("prompt_accuracy", prompted)
    if reward.needs_prompt:
        return metrics | {"pairs": len(prompted)} | compute_mean_metrics("overall_accuracy", prompted)
    return metrics | _compare_corruptions(reward, views, each, seed, batch_size)


def _compare_corruptions(
    reward: Reward, views: Sequence[ProductView], each: int, seed: int, batch_size: int
) -> dict[str, float]:
    pairs = [(kind, pair) for kind in CORRUPTIONS for pair in sample_real_comparisons(views, kind, each, seed)]
    if not pairs:
        return {}
    images = [
        render_variant(views[pair.view], variant, ()) for _, pair in pairs for variant in (pair.first, pair.second)
    ]
    originals = [views[pair.view] for _, pair in pairs for _ in range(2)]
    scores = reward.score(_stack_images(images), _stack_products(originals), None, batch_size=batch_size)
    metrics: dict[str, float] = {"pairs": len(pairs)}
    for question, values in scores.items():
        by_pin: dict[int, list[float]] = {}
        for (kind, pair), (first, second) in zip(pairs, values.view(-1, 2).tolist(), strict=True):
            if question == "overall" or question in CORRUPTIONS[kind].hurts:
                gain = (first - second) * (1 if pair.first.kind is None else -1)
                by_pin.setdefault(pair.view, []).append(_count_win(gain))
        metrics |= compute_mean_metrics(
            f"{question}_accuracy", [float(np.mean(pin_wins)) for pin_wins in by_pin.values()]
        )
    return metrics


def _compare_backgrounds(
    reward: Reward, views: Sequence[ProductView], products: Sequence[str], seed: int, batch_size: int
) -> list[float]:
    """Return of each view with a background whether it gets a higher score with that than with one drawn from the other
    views': 1, 0, or 0.5 for a tie; nothing where all views show the same."""
    backgrounds = sorted({view.background for view in views if view.background})
    view_names = [(view, name) for view, name in zip(views, products, strict=True) if view.background]
    if len(backgrounds) < 2:
        return []
    rng = np.random.default_rng(seed)
    others = [str(rng.choice([other for other in backgrounds if other != view.background])) for view, _ in view_names]
    inputs = _stack_images([view.pixels for view, _ in view_names]), _stack_products([view for view, _ in view_names])
    right, wrong = (
        select_ranking_score(reward.score(*inputs, prompts, batch_size=batch_size)).tolist()
        for prompts in (
            [format_caption(name, view.background) for view, name in view_names],
            [format_caption(name, other) for (_, name), other in zip(view_names, others, strict=True)],
        )
    )
    return [_count_win(first - second) for first, second in zip(right, wrong, strict=True)]


def _count_win(gain: float) -> float:
    return 0.5 if gain == 0 else float(gain > 0)


def _stack_images(images: Sequence[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _stack_products(views: Sequence[ProductView]) -> ProductImages:
    masks = torch.from_numpy(np.stack([view.mask for view in views]))[:, None]
    return ProductImages(_stack_images([view.pixels for view in views]), masks)


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
        pins_with_truth = [pin for pin in pins if pin.pin_id in true_masks]
        masks = _find_products(segmenter, edges, pins_with_truth, batch_size)
        return compute_mean_metrics("iou", [iou(masks[pin.pin_id], true_masks[pin.pin_id]) for pin in pins_with_truth])
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
