from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.train_judges import train_judges
from evaluation.judges.features import choose_view_side
from evaluation.judges.judges import CONFIG_FILE, WEIGHTS_FILE, Judges, SceneJudge, fit_judges
from lifecycle.declare.stage import Input, Output
from tests.components.mugs import tiny, write_catalogue

SCENES = ("city square", "forest", "lobby")


def features(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [place % 3 for place in range(count)]
    centres = np.random.default_rng(9).normal(0, 1, (3, 6))
    return (centres[labels] + rng.normal(0, 0.3, (count, 6))).astype(np.float32), [SCENES[at] for at in labels]


@pytest.mark.parametrize("scenes", [2, 3])
def test_what_was_saved_says_the_same(tmp_path: Path, scenes: int):
    inputs, labels = features(60, 0)
    few = [place for place, label in enumerate(labels) if label in SCENES[:scenes]]
    judge = SceneJudge.fit(inputs[few], [labels[place] for place in few])
    sharp = SceneJudge.fit(inputs[few[:20]], [labels[place] for place in few[:20]])
    judges = Judges(SCENES[:scenes], (judge, sharp), {"scene_accuracy_real": 0.9})
    judges.save(tmp_path / "judges")
    again = Judges.load(tmp_path / "judges")
    unseen, truth = features(30, 1)
    assert again.recognize_scenes(unseen) == judges.recognize_scenes(unseen)
    assert list(again.scenes) == list(judges.scenes)
    assert again.accuracy == {"scene_accuracy_real": 0.9}
    right = [
        seen == label
        for (seen, _), label in zip(judges.recognize_scenes(unseen), truth, strict=True)
        if label in judges.scenes
    ]
    assert np.mean(right) > 0.9


def test_a_judge_decides_as_its_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs, labels = features(60, 0)
    unseen, _ = features(200, 2)
    for scenes in (2, 3):
        few = [place for place, label in enumerate(labels) if label in SCENES[:scenes]]
        known = [labels[place] for place in few]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(inputs[few], known)
        judge = SceneJudge.fit(inputs[few], known)
        assert judge.predict(unseen) == list(model.predict(unseen))
        assert judge.compute_probabilities(unseen) == pytest.approx(model.predict_proba(unseen), abs=1e-6)
        both = Judges(judge.scenes, (judge, judge)).compute_probabilities(unseen, judge.scenes[1])
        assert both == pytest.approx(np.repeat(model.predict_proba(unseen)[:, 1:2], 2, axis=1), abs=1e-6)
        with pytest.raises(ValueError, match="do not know the scene 'moon': they know city square, forest"):
            Judges(judge.scenes, (judge, judge)).compute_probabilities(unseen, "moon")


def test_nobody_judges_where_no_scene_is_known(tmp_path: Path):
    write_catalogue(tmp_path, truth=False)
    tables = [tmp_path / name for name in ("pins", "kept", "truth")]
    nobody = fit_judges(*tables, side=64, images=8, held_out_count=4, seed=0)
    nobody.save(tmp_path / "judges")
    again = Judges.load(tmp_path / "judges")
    assert again.recognize_scenes(np.zeros((2, 3), np.float32)) == [(None, None)] * 2
    assert again.match_prompt("in a forest") is None
    assert again.accuracy == {}


def test_judges_of_large_frames_are_given_smaller_squares(tmp_path: Path):
    assert [choose_view_side(side) for side in (64, 256, 512, 1024)] == [64, 256, 256, 256]
    write_catalogue(tmp_path)
    learnt = []
    for side in (256, 512):
        params = tiny(train_judges, "frames", side=side, buckets=[[side, side]])
        tables = {name: Input(tmp_path / name) for name in ("pins", "kept", "truth")}
        folder = tmp_path / str(side)
        train_judges(**params, **tables, judges=Output(folder), metrics=Output(tmp_path / "judges.json"))
        learnt.append([(folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)])
    assert learnt[0] == learnt[1]


def test_judges_that_are_not_there(tmp_path: Path):
    with pytest.raises(OSError, match=r"judges\.json"):
        Judges.load(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [("in a forest", "forest"), ("on a city square", "city square"), ("on the moon", None)],
)
def test_the_scene_of_a_prompt(prompt, scene):
    assert Judges(("city square", "forest"), None).match_prompt(prompt) == scene


def test_without_judges_no_scene_is_recognized():
    assert Judges((), None).recognize_scenes(np.zeros((2, 3), np.float32)) == [(None, None)] * 2
