"""Distances agree with the papers' formulas and with clean-fid, and grow with what is planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluation.measures.distances import (
    cmmd,
    frechet_distance,
    half_sample_error,
    kernel_distance,
    polynomial_kernel,
    squared_mmd,
    text_agreement,
    vendi_score,
)


def features(count: int, mean: float = 0.0, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return (spread * np.random.default_rng(seed).normal(size=(count, 16)) + mean).astype(np.float32)


def test_squared_mmd_is_the_estimator_of_the_paper() -> None:
    x, y = features(5), features(4, 0.5, 1)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(float) @ b.astype(float)) / 16 + 1) ** 3

    within_x = np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    within_y = np.mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y, polynomial_kernel) == pytest.approx(within_x + within_y - 2 * across)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (9, 12)])  # 12 pictures of 16 numbers: covariances are singular
def test_frechet_distance_is_clean_fids(n: int, m: int) -> None:
    from cleanfid.fid import frechet_distance as reference

    x, y = features(n).astype(np.float64), features(m, 0.3, 1, 1.5).astype(np.float64)
    expected = reference(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    assert frechet_distance(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(expected, rel=1e-2)


def test_frechet_distance_of_equal_sets_is_nothing() -> None:
    assert frechet_distance(features(50), features(50)) == pytest.approx(0, abs=1e-4)


def test_cmmd_is_the_estimator_of_the_paper() -> None:
    x, y = features(5), features(4, 0.5, 1)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        return float(np.exp(-np.sum((a - b) ** 2) / 200))

    within_x = np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    within_y = np.mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert cmmd(x, y) == pytest.approx(1000 * (within_x + within_y - 2 * across), rel=1e-3)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, cmmd])
def test_distances_grow_with_the_shift(distance) -> None:
    real = features(200)
    same, near, far = (distance(real, features(150, shift, 7)) for shift in (0.0, 0.5, 1.5))
    assert same < near < far
    assert near - same > 2 * half_sample_error(distance, real, features(150, 0.5, 7))


@pytest.mark.parametrize("distance", [kernel_distance, cmmd])
def test_unbiased_distances_are_about_zero_without_a_shift(distance) -> None:
    real, same = features(200), features(150, 0.0, 7)
    assert abs(distance(real, same)) < 3 * half_sample_error(distance, real, same)
    assert half_sample_error(distance, real, same) == half_sample_error(distance, real, same)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, cmmd])
def test_a_distance_of_one_picture(distance) -> None:
    with pytest.raises(ValueError, match="200 and 1 images"):
        distance(features(200), features(1))


def test_vendi_score_counts_different_pictures() -> None:
    corners = np.eye(4, dtype=np.float32)
    assert vendi_score(corners) == pytest.approx(4)
    assert vendi_score(np.repeat(corners, 5, axis=0) * 3) == pytest.approx(4)  # copies, of another length
    assert vendi_score(corners[[0, 0, 0]]) == pytest.approx(1)
    assert 1 < vendi_score(corners[[0, 0, 0, 1]]) < 2
    with pytest.raises(ValueError, match="no image"):
        vendi_score(corners[:0])


def test_text_agreement_is_the_cosine_of_each_pair() -> None:
    images, texts = np.array([[2, 0], [0, 3], [1, 1]], np.float32), np.array([[1, 0], [1, 0], [-1, -1]], np.float32)
    assert text_agreement(images, texts).tolist() == pytest.approx([1, 0, -1])


def test_text_agreement_needs_a_text_for_each_image() -> None:
    with pytest.raises(ValueError, match="1 texts for 2 images"):
        text_agreement(np.eye(2, dtype=np.float32), np.array([[1, 0]], np.float32))
