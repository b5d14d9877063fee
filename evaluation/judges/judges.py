"""The judges of scenes of one catalogue: fitted once, saved, and used by every stage that scores images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from canvas.pins.scene_views import list_scenes, load_scene_views
from canvas.pins.tables import HELD_OUT_SPLITS
from evaluation.judges.scenes import SceneJudge, blur_views, compute_scene_accuracy, fit_scene_judges
from evaluation.measures.distances import Features

CONFIG_FILE, WEIGHTS_FILE = "judges.json", "judges.safetensors"


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
    real, known = load_scene_views(*tables, splits=HELD_OUT_SPLITS, side=side, count=held_out_count, emptied=False)
    if not len(real):
        return Judges(scenes, both)
    sharp = compute_scene_accuracy(both, real, known, "real")
    blurred = compute_scene_accuracy(both, blur_views(real, seed + 1), known, "blurred")
    return Judges(scenes, both, sharp | blurred)
