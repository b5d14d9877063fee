"""Metrics of generated backgrounds: scene accuracy, growth and erosion of the product, change of its core.

Masks are bool [h, w], True is product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canvas.pins.masks import Mask
from evaluation.statistics.intervals import crossed_bootstrap_mean


@dataclass(frozen=True, slots=True)
class BackgroundScore:
    """One image of a product on a prompted background."""

    product: str  # images of one product are not independent
    scene: str | None  # the prompted one; None: no judge knows it
    seen: str | None  # scene that the judge recognizes
    seen_sharp: str | None  # likewise, the judge of sharp images
    extension: float  # see `measure_growth`
    erosion: float
    seam: float | None  # gradient round the product's edge; None: it has none
    core_difference: int  # largest change of a byte on the product's core


def compute_background_metrics(scores: Sequence[BackgroundScore]) -> dict[str, float]:
    """Return means over the images, each with its 95 % interval over the products, the prompts being given."""
    judged = [score for score in scores if score.scene is not None]
    metrics: dict[str, float] = {"pictures": len(scores)}
    if judged:
        metrics |= _compute_interval("scene_accuracy", judged, [float(score.seen == score.scene) for score in judged])
        metrics |= _compute_interval(
            "scene_accuracy_sharp", judged, [float(score.seen_sharp == score.scene) for score in judged]
        )
    metrics |= _compute_interval("extension_mean", scores, [score.extension for score in scores])
    metrics |= _compute_interval("erosion_mean", scores, [score.erosion for score in scores])
    return metrics | {"core_max_abs_diff": max(score.core_difference for score in scores)}


def _compute_interval(name: str, scores: Sequence[BackgroundScore], values: Sequence[float]) -> dict[str, float]:
    products = [score.product for score in scores]
    return crossed_bootstrap_mean(values, products, ["all prompts"] * len(scores)).to_metrics(name)


def compute_scene_accuracies(scores: Sequence[BackgroundScore]) -> dict[str, float]:
    """Return the share of images in which the judge recognizes the prompted scene, by scene."""
    by_scene: dict[str, list[float]] = {}
    for score in scores:
        if score.scene is not None:
            by_scene.setdefault(score.scene, []).append(float(score.seen == score.scene))
    return {scene: float(np.mean(hits)) for scene, hits in sorted(by_scene.items())}


def measure_growth(before: Mask, after: Mask) -> tuple[float, float]:
    """Return how much of its area the product gained (extension) and lost (erosion), both 0 or more.

    Extension is area(before or after) - area(before) (object extension of "Salient object-aware background generation",
    Eshratifar et al. 2024); erosion is area(before) - area(before and after). `before` must not be empty.
    """
    area = int(before.sum())
    if not area:
        raise ValueError("the product's mask is empty: growth is measured in parts of its area")
    return int((after & ~before).sum()) / area, int((before & ~after).sum()) / area
