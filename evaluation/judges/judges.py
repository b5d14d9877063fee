"""The judges of scenes of one catalogue: learnt once, kept in files, asked by every stage that scores pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.judges.scenes import SceneJudge, blur_views, compute_scene_accuracy, fit_scene_judges
from evaluation.measures.distances import Features

CONFIG_FILE, WEIGHTS_FILE = "judges.json", "judges.safetensors"


@dataclass(frozen=True, slots=True)
class Judges:
    """The two judges of evaluation.judges.scenes, or none where no pin's scene is known."""

    scenes: Sequence[str]  # those that they know
    both: tuple[SceneJudge, SceneJudge] | None  # the one that knows blur, and the sharp one
    accuracy: Mapping[str, float] = field(default_factory=dict)  # on real held-out pins (evaluation.judges.scenes)

    def prompted(self, prompt: str) -> str | None:
        """The scene whose words a prompt holds; None: no judge knows it."""
        return next((scene for scene in self.scenes if scene in prompt), None)

    def seen(self, features: Features) -> list[tuple[str | None, str | None]]:
        """What both see in pictures of these features (evaluation.judges.features.extract_scene_features)."""
        if self.both is None:
            return [(None, None)] * len(features)
        soft, sharp = (judge.predict_features(features) for judge in self.both)
        return list(zip(soft, sharp, strict=True))

    def chances(self, features: Features, scene: str) -> NDArray[np.float64]:
        """How likely both find `scene` in pictures of these features: [N, 2] in 0..1. Raises `ValueError` for a scene
        that they do not know."""
        if self.both is None or scene not in self.scenes:
            raise ValueError(
                f"the judges do not know the scene {scene!r}: they know {', '.join(self.scenes) or 'none'}"
            )
        return np.stack([judge.chances(features)[:, judge.scenes.index(scene)] for judge in self.both], axis=1)

    def save(self, path: Path) -> None:
        """Into the directory `path`, which is made."""
        from safetensors.numpy import save_file

        path.mkdir(parents=True)
        told = {"scenes": list(self.scenes), "accuracy": dict(self.accuracy), "judges": []}
        weights: dict[str, np.ndarray] = {}
        for number, judge in enumerate(self.both or ()):
            arrays = asdict(judge)
            told["judges"] += [arrays.pop("scenes")]  # type: ignore[operator]
            weights |= {f"{number}.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
        (path / CONFIG_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        save_file(weights, path / WEIGHTS_FILE)

    @classmethod
    def load(cls, path: Path) -> Judges:
        """Those that `save` wrote. Raises `OSError` if there are none."""
        from safetensors.numpy import load_file

        told, weights = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")), load_file(path / WEIGHTS_FILE)
        judges = [
            SceneJudge(tuple(scenes), weights[f"{number}.weights"], weights[f"{number}.bias"])
            for number, scenes in enumerate(told["judges"])
        ]
        return cls(told["scenes"], (judges[0], judges[1]) if judges else None, told["accuracy"])


def fit_judges(
    pins: Path, kept: Path, truth: Path, *, side: int, pictures: int, checked: int, held_out: Collection[str], seed: int
) -> Judges:
    """Judges that learnt the scenes of `pictures` real train pins, half of them without their product, at `side`
    pixels, and are checked on `checked` real pins of the splits `held_out`, as they are and blurred. Nobody where fewer
    than two scenes are known."""
    from canvas.pins.scene_views import list_scenes, load_scene_views

    scenes, tables = list_scenes(truth), (pins, kept, truth)
    if len(scenes) < 2:
        return Judges((), None)
    half = -(-pictures // 2)
    of_train = [
        load_scene_views(*tables, splits=("train",), side=side, count=half, emptied=emptied)
        for emptied in (False, True)
    ]
    views = np.concatenate([views for views, _ in of_train])
    both = fit_scene_judges(views, [label for _, labels in of_train for label in labels], seed)
    real, known = load_scene_views(*tables, splits=held_out, side=side, count=checked, emptied=False)
    if not len(real):
        return Judges(scenes, both)
    soft = compute_scene_accuracy(both, blur_views(real, seed + 1), known, "blurred")
    return Judges(scenes, both, {**compute_scene_accuracy(both, real, known, "real"), **soft})
