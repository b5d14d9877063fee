from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluation.backdrop import (
    BackdropScore,
    backdrop_metrics,
    growth,
    kernel_distance,
    scene_accuracies,
    squared_mmd,
)


def features(count: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 16)) + mean).astype(np.float32)


def square(top: int, left: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((12, 12), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(
    ("after", "extension", "erosion"),
    [
        (square(2, 2), 0, 0),
        (square(2, 4), 0.5, 0.5),  # moved by half its side
        (square(1, 1, 6), 20 / 16, 0),
        (square(3, 3, 2), 0, 12 / 16),
        (np.zeros((12, 12), bool), 0, 1),
    ],
)
def test_growth(after, extension, erosion):
    assert growth(square(2, 2), after) == (extension, erosion)


def test_growth_of_nothing():
    with pytest.raises(ValueError, match="the product's mask is empty"):
        growth(np.zeros((2, 2), bool), np.ones((2, 2), bool))


def test_squared_mmd_is_the_estimator_of_the_paper():
    x, y = features(5), features(4, 0.5, 1)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(float) @ b.astype(float)) / 16 + 1) ** 3

    within_x = np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    within_y = np.mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_kernel_distance_grows_with_the_shift_and_is_about_zero_without():
    real = features(200)
    same, near, far = (kernel_distance(real, features(150, shift, 7)) for shift in (0.0, 0.3, 1.0))
    assert abs(same["kid"]) < 3 * same["kid_error"]
    assert 3 * near["kid_error"] < near["kid"] < far["kid"]
    assert kernel_distance(real, features(150, 0.3, 7)) == near


def test_kernel_distance_of_one_picture():
    with pytest.raises(ValueError, match="200 and 1 pictures"):
        kernel_distance(features(200), features(1))


def score(
    scene: str | None, seen: str | None, sharp: str | None, extension: float = 0.0, core: int = 0
) -> BackdropScore:
    return BackdropScore(
        scene=scene, seen=seen, seen_sharp=sharp, extension=extension, erosion=0.5, seam=1.0, core_difference=core
    )


def test_metrics():
    scores = [
        score("forest", "forest", "lobby", 0.2),
        score("forest", "lobby", "lobby", 0.4),
        score("lobby", "lobby", "lobby", 0.6, core=3),
        score(None, "lobby", "lobby"),  # no judge knows what was asked for
    ]
    found = backdrop_metrics(scores)
    assert found["pictures"] == 4
    assert found["scene_accuracy"] == pytest.approx(2 / 3)
    assert found["scene_accuracy_sharp"] == pytest.approx(1 / 3)
    assert found["extension_mean"] == pytest.approx(0.3)
    assert found["extension_mean_low"] < 0.3 < found["extension_mean_high"]
    assert found["erosion_mean"] == 0.5
    assert found["core_max_abs_diff"] == 3
    assert scene_accuracies(scores) == {"forest": 0.5, "lobby": 1.0}


def test_metrics_without_judges():
    assert not [name for name in backdrop_metrics([score(None, None, None)]) if name.startswith("scene")]
