"""What backgrounds are worth: is it the scene that was asked for, is the product whole, and how real is the picture?

Masks are bool [h, w], True is product. Features are float32 [pictures, dimensions].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.masks import Mask, interval

Features = NDArray[np.float32]

HALVES = 50
"""Random halves that the standard error of a kernel distance is taken from."""


@dataclass(frozen=True, slots=True)
class BackdropScore:
    """One picture of a product on a prompted background."""

    scene: str | None  # the prompted one; None: no judge knows it
    seen: str | None  # what the judge sees
    seen_sharp: str | None  # what the judge trained on sharp pictures alone sees
    extension: float  # see `growth`
    erosion: float
    seam: float | None  # gradient round the product's edge; None: it has none
    core_difference: int  # largest change of a byte on the product's core


def backdrop_metrics(scores: Sequence[BackdropScore]) -> dict[str, float]:
    """Means over the pictures, each with its 95 % interval; scene accuracy where a judge knows the prompted scene."""
    judged = [score for score in scores if score.scene is not None]
    found: dict[str, float] = {"pictures": len(scores)}
    if judged:
        found |= interval("scene_accuracy", [float(score.seen == score.scene) for score in judged])
        found |= interval("scene_accuracy_sharp", [float(score.seen_sharp == score.scene) for score in judged])
    found |= interval("extension_mean", [score.extension for score in scores])
    found |= interval("erosion_mean", [score.erosion for score in scores])
    return found | {"core_max_abs_diff": max(score.core_difference for score in scores)}


def scene_accuracies(scores: Sequence[BackdropScore]) -> dict[str, float]:
    """Share of pictures in which the judge sees the prompted scene, by scene."""
    by_scene: dict[str, list[float]] = {}
    for score in scores:
        if score.scene is not None:
            by_scene.setdefault(score.scene, []).append(float(score.seen == score.scene))
    return {scene: float(np.mean(right)) for scene, right in sorted(by_scene.items())}


def growth(before: Mask, after: Mask) -> tuple[float, float]:
    """How much of its area the product gained (extension) and lost (erosion), both 0 or more.

    Extension is area(before or after) - area(before) (object extension of "Salient object-aware background generation",
    Eshratifar et al. 2024); erosion is area(before) - area(before and after). `before` must not be empty.
    """
    area = int(before.sum())
    if not area:
        raise ValueError("the product's mask is empty: growth is measured in parts of its area")
    return int((after & ~before).sum()) / area, int((before & ~after).sum()) / area


def kernel_distance(real: Features, made: Features, *, seed: int = 0) -> dict[str, float]:
    """Kernel distance of two sets of features (KID; Binkowski et al. 2018, section 4), `kid`: 0 for sets of one
    distribution, also below by chance. `kid_error` is its standard error, from HALVES random halves of both sets
    (half-sampling, Shao and Tu 1995, chapter 5.2). ValueError for fewer than 2 pictures in either."""
    if min(len(real), len(made)) < 2:
        raise ValueError(f"a kernel distance of {len(real)} and {len(made)} pictures: give 2 or more of both")
    rng = np.random.default_rng(seed)

    def half(features: Features) -> Features:
        return features[rng.choice(len(features), max(2, len(features) // 2), replace=False)]

    spread = np.std([squared_mmd(half(real), half(made)) for _ in range(HALVES)])
    return {"kid": squared_mmd(real, made), "kid_error": float(spread)}


def squared_mmd(x: Features, y: Features) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under the polynomial
    kernel (x . y / dimensions + 1)^3."""
    n, m = len(x), len(y)
    of_x, of_y, across = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within_x = (of_x.sum() - np.trace(of_x)) / (n * (n - 1))
    within_y = (of_y.sum() - np.trace(of_y)) / (m * (m - 1))
    return float(within_x + within_y - 2 * across.mean())


def _kernel(x: Features, y: Features) -> NDArray[np.float64]:
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3
