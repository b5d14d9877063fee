from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics.intervals import bootstrap_mean
from evaluation.statistics.sequences import compute_confidence_sequence

LOOKS = range(5, 65, 5)


def test_looking_again_and_again_misleads_no_more_often() -> None:
    """At most 2.5 % of equal models are called better at some look, where an interval for one look fails."""
    random = np.random.default_rng(0)
    misled = {compute_confidence_sequence: 0, bootstrap_mean: 0}
    for _ in range(120):
        wins = random.integers(0, 2, LOOKS[-1]).astype(float)
        for compute in misled:
            misled[compute] += any(compute(wins[:look]).low > 0.5 for look in LOOKS)
    assert misled[compute_confidence_sequence] <= 3
    assert misled[bootstrap_mean] >= 8


def test_better_and_worse_are_found() -> None:
    wins = [1.0] * 32 + [0.0] * 8
    better = compute_confidence_sequence(wins)
    assert better.mean == pytest.approx(0.8)
    assert 0.5 < better.low < 0.8 < better.high < 1
    worse = compute_confidence_sequence([1 - value for value in wins])
    assert (worse.low, worse.high) == pytest.approx((1 - better.high, 1 - better.low))


def test_more_values_narrow_it_and_their_order_does_not_matter() -> None:
    values = np.random.default_rng(1).random(80).tolist()
    short, long = compute_confidence_sequence(values[:20]), compute_confidence_sequence(values)
    assert long.high - long.low < short.high - short.low
    assert compute_confidence_sequence(values[::-1]) == pytest.approx(long)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_values_that_are_all_alike(value: float) -> None:
    one, many = compute_confidence_sequence([value]), compute_confidence_sequence([value] * 200)
    assert 0 <= one.low <= many.low <= value <= many.high <= one.high <= 1
    assert many.high - many.low < 0.2 < one.high - one.low


@pytest.mark.parametrize("values", [[], [1.5], [-0.1, 0.5], [float("nan")]])
def test_values_that_are_no_shares(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1|at least one value|not finite"):
        compute_confidence_sequence(values)
