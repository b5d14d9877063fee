"""Judges of scenes: logistic regression on the features of a network that no loss of the generator uses.

They are fitted to real images of the generator's size, or features.MAX_VIEW_SIDE if that is less. Of two judges one,
fitted to sharp images alone, asks for their texture; the other, fitted to sharp and blurred ones, forgives its lack.
The judges of a catalogue are fitted once and used by every stage that scores images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from canvas.pins.scene_views import Views, list_scenes, load_scene_views
from canvas.pins.tables import HELD_OUT_SPLITS
from evaluation.judges.features import extract_scene_features
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import bootstrap_mean

CONFIG_FILE, WEIGHTS_FILE = "judges.json", "judges.safetensors"

MAX_BLUR = 2.5  # standard deviation of the strongest blur, in pixels of an image of 64
INVERSE_PENALTY = 0.1  # of the logistic regression: with few more images than features it needs a strong penalty


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


@dataclass(frozen=True, slots=True)
class Judges:
    """Two judges of scenes, or none where no pin's scene is known."""

    scenes: Sequence[str]
    both: tuple[SceneJudge, SceneJudge] | None  # fitted to sharp and blurred images, and to sharp ones alone
    accuracy: Mapping[str, float] = field(default_factory=dict)  # on real held-out pins

    def match_prompt(self, prompt: str) -> str | None:
        """Return the scene that a prompt names, or None."""
        return next((scene for scene in self.scenes if scene in prompt), None)

    def recognize_scenes(self, features: Features) -> list[tuple[str | None, str | None]]:
        """Return the scenes that both judges recognize in images of these scene features."""
        if self.both is None:
            return [(None, None)] * len(features)
        soft, sharp = (judge.predict(features) for judge in self.both)
        return list(zip(soft, sharp, strict=True))

    def compute_probabilities(self, features: Features, scene: str) -> NDArray[np.float64]:
        """Return both judges' probability of `scene`, [N, 2]. Raises `ValueError` for a scene that they do not know."""
        if self.both is None or scene not in self.scenes:
            raise ValueError(
                f"the judges do not know the scene {scene!r}: they know {', '.join(self.scenes) or 'none'}"
            )
        return np.stack(
            [judge.compute_probabilities(features)[:, judge.scenes.index(scene)] for judge in self.both], axis=1
        )

    def save(self, path: Path) -> None:
        """Write the judges into the new directory `path`."""
        path.mkdir(parents=True)
        both = self.both or ()
        scenes = [judge.scenes for judge in both]
        config = {"scenes": list(self.scenes), "accuracy": dict(self.accuracy), "judges": scenes}
        weights = {
            f"{number}.{name}": np.ascontiguousarray(array)
            for number, judge in enumerate(both)
            for name, array in (("weights", judge.weights), ("bias", judge.bias))
        }
        (path / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file(weights, path / WEIGHTS_FILE)

    @classmethod
    def load(cls, path: Path) -> Judges:
        """Read what `save` wrote. Raises `OSError` if it is not there."""
        config, weights = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")), load_file(path / WEIGHTS_FILE)
        judges = [
            SceneJudge(tuple(scenes), weights[f"{number}.weights"], weights[f"{number}.bias"])
            for number, scenes in enumerate(config["judges"])
        ]
        return cls(config["scenes"], (judges[0], judges[1]) if judges else None, config["accuracy"])


def fit_judges(
    pins: Path, kept: Path, truth: Path, *, side: int, images: int, held_out_count: int, seed: int
) -> Judges:
    """Fit judges to real pins of the train split, and measure their accuracy on held-out ones, sharp and blurred.

    Args:
        truth: Table of scenes; with fewer than two of them there are no judges.
        side: Pixels of the squares that judges see.
        images: Train images, half of them without their product.
        held_out_count: Held-out images.
        seed: Of the blur.
    """
    scenes, tables = list_scenes(truth), (pins, kept, truth)
    if len(scenes) < 2:
        return Judges((), None)
    half = -(-images // 2)
    train = [
        load_scene_views(*tables, splits=("train",), side=side, count=half, emptied=emptied)
        for emptied in (False, True)
    ]
    views = np.concatenate([views for views, _ in train])
    both = fit_scene_judges(views, [label for _, labels in train for label in labels], seed)
    real, real_labels = load_scene_views(
        *tables, splits=HELD_OUT_SPLITS, side=side, count=held_out_count, emptied=False
    )
    if not len(real):
        return Judges(scenes, both)
    sharp = compute_scene_accuracy(both, real, real_labels, "real")
    blurred = compute_scene_accuracy(both, blur_views(real, seed + 1), real_labels, "blurred")
    return Judges(scenes, both, sharp | blurred)


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
