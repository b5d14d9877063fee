from __future__ import annotations

import numpy as np
import pytest

from evaluation.judges.features import extract_scene_features
from evaluation.judges.judges import SceneJudge, blur_views, compute_scene_accuracy, fit_scene_judges


def views(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Grey images: stripes across, stripes down, or fine noise."""
    rng = np.random.default_rng(seed)
    images, scenes = [], []
    for index in range(count):
        image = np.full((64, 64, 3), rng.integers(90, 160), np.int64)
        scene = ("across", "down", "noise")[index % 3]
        width = int(rng.integers(4, 7))
        stripes = (np.arange(64) // width % 2 * 60)[:, None]
        added = {"across": stripes, "down": stripes.T, "noise": rng.integers(-40, 40, (64, 64))}[scene]
        images.append(np.clip(image + added[..., None], 0, 255).astype(np.uint8))
        scenes.append(scene)
    return np.stack(images), scenes


@pytest.fixture(scope="module")
def judges() -> tuple[SceneJudge, SceneJudge]:
    return fit_scene_judges(*views(30, 0), seed=0)


def test_judges_tell_unseen_views_apart(judges):
    figures = compute_scene_accuracy(judges, *views(12, 1), "real")
    assert figures["scene_accuracy_real"] == figures["scene_accuracy_sharp_real"] == 1
    assert figures["scene_accuracy_real_low"] <= 1 <= figures["scene_accuracy_real_high"]


def test_images_without_their_texture_are_not_recognised(judges):
    images, scenes = views(12, 1)
    plain = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape).astype(np.uint8)
    figures = compute_scene_accuracy(judges, plain, scenes, "plain")
    assert figures["scene_accuracy_plain"] <= 0.5
    assert figures["scene_accuracy_sharp_plain"] <= 0.5


def test_one_judge_is_fitted_to_blurred_views_too(judges):
    images, scenes = views(30, 0)
    sharp, blurred = extract_scene_features(images), extract_scene_features(blur_views(images, 0))
    held_out = extract_scene_features(views(6, 2)[0])
    soft = SceneJudge.fit(np.concatenate([sharp, blurred]), [*scenes, *scenes])
    for judge, alone in zip(judges, (soft, SceneJudge.fit(sharp, scenes)), strict=True):
        assert alone.predict(held_out) == judge.predict(held_out)
    assert judges[0].predict(held_out[:0]) == []


def test_blur_is_the_seeds():
    images, _ = views(6, 0)
    assert np.array_equal(blur_views(images, 3), blur_views(images, 3))
    assert not np.array_equal(blur_views(images, 3), blur_views(images, 4))
    assert (
        np.abs(np.diff(blur_views(images, 3).astype(int), axis=2)).sum()
        < np.abs(np.diff(images.astype(int), axis=2)).sum()
    )


def test_one_scene_is_nothing_to_tell_apart():
    with pytest.raises(ValueError, match=r"two or more to tell apart, not \['a'\]"):
        SceneJudge.fit(np.zeros((3, 8), np.float32), ["a"] * 3)
