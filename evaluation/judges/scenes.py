"""Judges of scenes: which scene does a small picture show?

Logistic regression on the features of a network that no loss of the generator uses, learnt from real pictures of the
size that the generator makes, or evaluation.judges.features.MAX_VIEW_SIDE if that is less. Two judges: one learnt from
sharp pictures alone asks for their texture, the other from sharp and blurred ones forgives its lack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.judges.features import extract_scene_features
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import bootstrap_mean

if TYPE_CHECKING:
    from canvas.pins.scene_views import Views

MAX_BLUR = 2.5
"""Standard deviation of the strongest blur, in pixels of a picture of 64."""

INVERSE_PENALTY = 0.1
"""Of the logistic regression: with few more pictures than features it needs a strong penalty."""


@dataclass(frozen=True, slots=True)
class SceneJudge:
    """Tells K scenes apart, on features [N, D]: the scene of the largest of K affine maps. Build it with `fit`, or
    two at once with `scene_judges`."""

    scenes: tuple[str, ...]
    weights: NDArray[np.float64]  # (K, D)
    bias: NDArray[np.float64]  # (K,)

    @classmethod
    def fit(cls, views: Views, scenes: Sequence[str], *, blur: bool, seed: int) -> SceneJudge:
        """Learn from `views`, uint8 [N, h, w, 3], and with `blur` from a blurred copy of each too.

        Raises `ValueError` for fewer than two scenes.
        """
        shown = np.concatenate([views, blur_views(views, seed)]) if blur else views
        return cls.fit_features(extract_scene_features(shown), [*scenes, *scenes] if blur else scenes)

    @classmethod
    def fit_features(cls, features: Features, scenes: Sequence[str]) -> SceneJudge:
        """Learn from the features of pictures."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        if len(set(scenes)) < 2:
            raise ValueError(f"a judge of scenes needs two or more to tell apart, not {sorted(set(scenes))}")
        scaler = StandardScaler().fit(features)
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(scaler.transform(features), list(scenes))
        maps, bias = model.coef_, model.intercept_
        if len(maps) == 1:  # two scenes: one map, whose sign decides
            maps, bias = np.concatenate([-maps, maps]) / 2, np.concatenate([-bias, bias]) / 2
        weights = maps / scaler.scale_
        return cls(tuple(str(scene) for scene in model.classes_), weights, bias - weights @ scaler.mean_)

    def predict(self, views: Views) -> list[str]:
        """The scene that each of uint8 [N, h, w, 3] shows."""
        return self.predict_features(extract_scene_features(views)) if len(views) else []

    def predict_features(self, features: Features) -> list[str]:
        """The scene that each picture of these features shows."""
        if not len(features):
            return []
        return [self.scenes[place] for place in self._logits(features).argmax(axis=1)]

    def chances(self, features: Features) -> NDArray[np.float64]:
        """How likely each scene is, [N, K] in 0..1, in the order of `scenes`."""
        from scipy.special import softmax

        chances: NDArray[np.float64] = softmax(self._logits(features), axis=1)
        return chances

    def _logits(self, features: Features) -> NDArray[np.float64]:
        return features @ self.weights.T + self.bias


def fit_scene_judges(views: Views, scenes: Sequence[str], seed: int) -> tuple[SceneJudge, SceneJudge]:
    """The judge that knows blur and the sharp one, as `SceneJudge.fit` makes them; features are computed once."""
    sharp, soft = extract_scene_features(views), extract_scene_features(blur_views(views, seed))
    both = SceneJudge.fit_features(np.concatenate([sharp, soft]), [*scenes, *scenes])
    return both, SceneJudge.fit_features(sharp, scenes)


def blur_views(views: Views, seed: int) -> Views:
    """Each view under a Gaussian blur of a strength of its own, 0 to MAX_BLUR."""
    rng = np.random.default_rng(seed)
    sigmas = rng.uniform(0, MAX_BLUR, len(views)) * (min(views.shape[1:3]) / 64)
    pairs = zip(views, np.maximum(sigmas, 0.05), strict=True)
    return np.stack([cv2.GaussianBlur(view, (0, 0), sigma) for view, sigma in pairs])


def compute_scene_accuracy(
    judges: tuple[SceneJudge, SceneJudge], views: Views, scenes: Sequence[str], suffix: str
) -> Mapping[str, float]:
    """How often both judges are right on `views`: `scene_accuracy_<suffix>` and `scene_accuracy_sharp_<suffix>`, with
    95 % intervals."""
    features = extract_scene_features(views)
    figures: dict[str, float] = {}
    for key, judge in zip((f"scene_accuracy_{suffix}", f"scene_accuracy_sharp_{suffix}"), judges, strict=True):
        right = [float(a == b) for a, b in zip(judge.predict_features(features), scenes, strict=True)]
        of = bootstrap_mean(right)
        figures |= {key: of.mean, f"{key}_low": of.low, f"{key}_high": of.high}
    return figures
