"""Chances are those of the exact test, and of many findings none stands by chance alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from evaluation.statistics.intervals import FLIPS, compute_sign_flip_p_value, find_significant


@pytest.mark.parametrize("size", [6, 12])
def test_all_signs_are_tried_of_few(size: int) -> None:
    values = np.random.default_rng(size).normal(0.3, 1, size)
    exact = permutation_test((values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf)
    assert compute_sign_flip_p_value(values.tolist()) == pytest.approx(exact.pvalue)


def test_random_signs_of_many_agree_with_a_t_test() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(1).normal(0.1, 1, 200)
    expected = ttest_1samp(values, 0, alternative="greater").pvalue
    assert compute_sign_flip_p_value(values.tolist()) == pytest.approx(expected, abs=0.02)
    assert compute_sign_flip_p_value(values.tolist()) == compute_sign_flip_p_value(values.tolist())


@pytest.mark.parametrize(
    ("values", "chance"),
    [([0.0] * 40, 1.0), ([1.0] * 40, 1 / (FLIPS + 1)), ([-1.0] * 40, 1.0), ([0.1], 0.5), ([0.1] * 3, 1 / 8)],
)
def test_corners(values: list[float], chance: float) -> None:
    assert compute_sign_flip_p_value(values) == chance


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_what_is_no_difference(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite differences"):
        compute_sign_flip_p_value(values)


def test_findings_among_many() -> None:
    assert find_significant([0.01, 0.04, 0.03, 0.005], 0.05) == [True] * 4  # 0.04 <= 0.05 * 4 / 4
    assert find_significant([0.01, 0.04, 0.9, 0.8], 0.05) == [True, False, False, False]
    assert find_significant([0.02, 0.9, 0.9, 0.9], 0.05) == [False] * 4
    assert find_significant([], 0.05) == []


def test_equal_models_seldom_raise_an_alarm() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for turn in range(60):
        chances = [compute_sign_flip_p_value(rng.normal(size=30).tolist(), seed=turn) for _ in range(40)]
        alarms += any(find_significant(chances, 0.05))
    assert alarms <= 8  # 3 are expected
