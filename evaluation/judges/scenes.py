"""Judges of scenes: logistic regression on the features of a network that no loss of the generator uses.

They are fitted to real images of the generator's size, or features.MAX_VIEW_SIDE if that is less. Of two judges one,
fitted to sharp images alone, asks for their texture; the other, fitted to sharp and blurred ones, forgives its lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from canvas.pins.scene_views import Views
from evaluation.judges.features import extract_scene_features
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import bootstrap_mean

MAX_BLUR = 2.5
"""Standard deviation of the strongest blur, in pixels of an image of 64."""

INVERSE_PENALTY = 0.1
"""Of the logistic regression: with few more images than features it needs a strong penalty."""


@dataclass(frozen=True, slots=True)
class SceneJudge:
    """A classifier of K scenes on features [N, D]: the largest of K affine maps."""

    scenes: tuple[str, ...]
    weights: NDArray[np.float64]  # (K, D)
    bias: NDArray[np.float64]  # (K,)

    @classmethod
    def fit(cls, features: Features, scenes: Sequence[str]) -> SceneJudge:
        """Fit the judge to features of images. Raises `ValueError` for fewer than two scenes."""
        if len(set(scenes)) < 2:
            raise ValueError(f"a judge of scenes needs two or more to tell apart, not {sorted(set(scenes))}")
        scaler = StandardScaler().fit(features)
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(scaler.transform(features), list(scenes))
        maps, bias = model.coef_, model.intercept_
        if len(maps) == 1:  # two scenes: one map, whose sign decides
            maps, bias = np.concatenate([-maps, maps]) / 2, np.concatenate([-bias, bias]) / 2
        weights = maps / scaler.scale_
        return cls(tuple(str(scene) for scene in model.classes_), weights, bias - weights @ scaler.mean_)

    def predict(self, features: Features) -> list[str]:
        """Return the scene of each image of these features."""
        return [self.scenes[index] for index in self._compute_logits(features).argmax(axis=1)]

    def compute_probabilities(self, features: Features) -> NDArray[np.float64]:
        """Return the probability of each of `scenes`, [N, K]."""
        return np.asarray(softmax(self._compute_logits(features), axis=1))

    def _compute_logits(self, features: Features) -> NDArray[np.float64]:
        return features @ self.weights.T + self.bias


def fit_scene_judges(views: Views, scenes: Sequence[str], seed: int) -> tuple[SceneJudge, SceneJudge]:
    """Fit the judge of sharp and blurred images, and the one of sharp images, to uint8 [N, h, w, 3]."""
    sharp, soft = extract_scene_features(views), extract_scene_features(blur_views(views, seed))
    both = SceneJudge.fit(np.concatenate([sharp, soft]), [*scenes, *scenes])
    return both, SceneJudge.fit(sharp, scenes)


def blur_views(views: Views, seed: int) -> Views:
    """Blur each view by a Gaussian of random strength, 0 to MAX_BLUR."""
    rng = np.random.default_rng(seed)
    sigmas = rng.uniform(0, MAX_BLUR, len(views)) * (min(views.shape[1:3]) / 64)
    pairs = zip(views, np.maximum(sigmas, 0.05), strict=True)
    return np.stack([cv2.GaussianBlur(view, (0, 0), sigma) for view, sigma in pairs])


def compute_scene_accuracy(
    judges: tuple[SceneJudge, SceneJudge], views: Views, scenes: Sequence[str], suffix: str
) -> dict[str, float]:
    """Return both judges' accuracy on `views`: `scene_accuracy_<suffix>` and `scene_accuracy_sharp_<suffix>`."""
    features = extract_scene_features(views)
    metrics: dict[str, float] = {}
    for key, judge in zip((f"scene_accuracy_{suffix}", f"scene_accuracy_sharp_{suffix}"), judges, strict=True):
        right = [float(a == b) for a, b in zip(judge.predict(features), scenes, strict=True)]
        metrics |= bootstrap_mean(right).to_metrics(key)
    return metrics
