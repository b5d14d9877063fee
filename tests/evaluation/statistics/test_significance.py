"""Chances are those of the exact test, and of many findings none stands by chance alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from evaluation.statistics.significance import FLIPS, chance_of_mean, found


@pytest.mark.parametrize("size", [6, 12])
def test_all_signs_are_tried_of_few(size: int) -> None:
    values = np.random.default_rng(size).normal(0.3, 1, size)
    exact = permutation_test((values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf)
    assert chance_of_mean(values.tolist()) == pytest.approx(exact.pvalue)


def test_random_signs_of_many_agree_with_a_t_test() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(1).normal(0.1, 1, 200)
    expected = ttest_1samp(values, 0, alternative="greater").pvalue
    assert chance_of_mean(values.tolist()) == pytest.approx(expected, abs=0.02)
    assert chance_of_mean(values.tolist()) == chance_of_mean(values.tolist())


@pytest.mark.parametrize(
    ("values", "chance"),
    [([0.0] * 40, 1.0), ([1.0] * 40, 1 / (FLIPS + 1)), ([-1.0] * 40, 1.0), ([0.1], 0.5), ([0.1] * 3, 1 / 8)],
)
def test_corners(values: list[float], chance: float) -> None:
    assert chance_of_mean(values) == chance


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_what_is_no_difference(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite differences"):
        chance_of_mean(values)


def test_findings_among_many() -> None:
    assert found([0.01, 0.04, 0.03, 0.005], 0.05) == [True] * 4  # 0.04 <= 0.05 * 4 / 4
    assert found([0.01, 0.04, 0.9, 0.8], 0.05) == [True, False, False, False]
    assert found([0.02, 0.9, 0.9, 0.9], 0.05) == [False] * 4
    assert found([], 0.05) == []


def test_equal_models_seldom_raise_an_alarm() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for turn in range(60):
        chances = [chance_of_mean(rng.normal(size=30).tolist(), seed=turn) for _ in range(40)]
        alarms += any(found(chances, 0.05))
    assert alarms <= 8  # 3 are expected
