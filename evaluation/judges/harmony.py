"""Does the light on a product go with its scene? A judge that no part of the generator learns from.

It is fitted to pairs of rendered pins: the product in its scene's light, and the same product without it. What it sees
are features of a network trained on ImageNet (evaluation.judges.features), of the product's surroundings with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from canvas.pins.images import Pixels
from canvas.pins.masks import Box
from evaluation.judges.features import extract_scene_features
from evaluation.measures.distances import Features

VIEW = 160
"""Pixels of the squares that it sees."""
SURROUNDINGS = 1.6
"""Sides of what it sees over those of the product's box."""
INVERSE_PENALTY = 0.01


@dataclass(frozen=True, slots=True)
class HarmonyJudge:
    """A linear score of features [N, D]: of two images of one product, the one in its scene's light has the higher."""

    weights: NDArray[np.float64]  # (D,)
    scale: NDArray[np.float64]  # (D,), standard deviations of the features

    @classmethod
    def fit(cls, lit: Features, unlit: Features) -> HarmonyJudge:
        """Fit the judge to pairs (N, D): logistic regression on their differences, without a constant (Bradley and
        Terry 1952)."""
        scale = np.concatenate([lit, unlit]).std(0).astype(np.float64) + 1e-6
        steps = (lit - unlit) / scale
        model = LogisticRegression(C=INVERSE_PENALTY, fit_intercept=False, max_iter=500)
        model.fit(np.concatenate([steps, -steps]), np.repeat([1, 0], len(steps)))
        return cls(model.coef_[0], scale)

    def compare(self, first: Features, second: Features) -> NDArray[np.float64]:
        """Return the probability, for each pair of N, that the first is the one in its scene's light."""
        return np.asarray(1 / (1 + np.exp(-((first - second) / self.scale) @ self.weights)))


def extract_harmony_features(images: Sequence[Pixels], boxes: Sequence[Box]) -> Features:
    """Return features [N, D] of images (H, W, 3), of what lies round the boxes x0, y0, x1, y1 of their products."""
    from PIL import Image

    views = []
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        half = SURROUNDINGS * max(right - left, bottom - top) / 2
        middle = (left + right) / 2, (top + bottom) / 2
        box = (
            max(0, round(middle[0] - half)),
            max(0, round(middle[1] - half)),
            min(image.shape[1], round(middle[0] + half)),
            min(image.shape[0], round(middle[1] + half)),
        )
        views.append(np.asarray(Image.fromarray(image).resize((VIEW, VIEW), Image.Resampling.BOX, box)))
    return extract_scene_features(np.stack(views))
