"""Bootstrap intervals: against the normal approximation, and the inputs that have none."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import Interval, bootstrap_mean


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap_mean(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_higher_level_is_wider() -> None:
    values = list(range(20))
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[4.0], [1.0, 1.0, 1.0]])
def test_values_without_spread_are_their_own_interval(values: list[float]) -> None:
    assert bootstrap_mean(values) == Interval(values[0], values[0], values[0])


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "at least one value"), ([1.0, float("nan")], "1 of 2 values are not finite"), ([[1.0]], "one dimension")],
)
def test_values_that_have_no_mean(values: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bootstrap_mean(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_outside_its_range(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_mean([1.0, 2.0], level=level)
