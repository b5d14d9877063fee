"""Bootstrap intervals: against the normal approximation, and the inputs that have none."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics.intervals import (
    Interval,
    bootstrap_mean,
    crossed_bootstrap_mean,
    resample_group_mean,
    resample_pair_mean,
)


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_mean(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize("values", [[4.0], [1.0, 1.0, 1.0]])
def test_values_without_spread_are_their_own_interval(values: list[float]) -> None:
    assert bootstrap_mean(values) == Interval(values[0], values[0], values[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one value"), ([1.0, float("nan")], "1 of 2 values are not finite"), ([[1.0]], "one dimension")],
)
def test_values_that_have_no_mean(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values)


def crossed(rows: int, columns: int, row: float, column: float, single: float, seed: int = 0):
    """Values of every row in every column, their rows and columns: effects of these deviations, and noise."""
    draw = np.random.default_rng(seed)
    effects = draw.normal(0, row, (rows, 1)) + draw.normal(0, column, (1, columns))
    values = effects + draw.normal(0, single, (rows, columns))
    of_row, of_column = np.indices(values.shape)
    return values.ravel().tolist(), of_row.ravel().tolist(), of_column.ravel().tolist()


@pytest.mark.parametrize(("row", "column"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_values_of_one_group_count_as_one(row, column):
    """Owen (2007): the variance of the mean is that of the groups' effects over their numbers."""
    rows, columns = 40, 60
    values, of_row, of_column = crossed(rows, columns, row, column, single=0.0)
    table = np.reshape(values, (rows, columns))
    of_rows, of_columns = table.std(axis=0)[0], table.std(axis=1)[0]
    interval = crossed_bootstrap_mean(values, of_row, of_column)
    half = 1.96 * np.hypot(of_rows / rows**0.5, of_columns / columns**0.5)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert bootstrap_mean(values).high - bootstrap_mean(values).low < half  # as if all were independent


def test_noise_of_single_values_counts_up_to_three_times():
    values, of_row, of_column = crossed(40, 60, 0.0, 0.0, single=1.0)
    interval, independent = crossed_bootstrap_mean(values, of_row, of_column), bootstrap_mean(values)
    assert (interval.high - interval.low) / (independent.high - independent.low) == pytest.approx(3**0.5, rel=0.1)


def test_groups_are_crossed_as_they_come():
    """Any names, cells with several values and with none."""
    values, of_row, of_column = [0.0, 1.0, 1.0, 0.5], ["a", "a", "b", "c"], ["x", "x", "y", ("z", 1)]
    interval = crossed_bootstrap_mean(values, of_row, of_column)
    assert 0 <= interval.low < interval.mean == 0.625 < interval.high <= 1
    rare = crossed_bootstrap_mean([0.0] * 27 + [1.0], [*range(7)] * 4, [*range(4)] * 7)
    assert (rare.mean, rare.low) == (1 / 28, 0)
    by_column = crossed_bootstrap_mean(values, ["a"] * 4, of_column)  # a single row: columns alone
    assert 0.5 <= by_column.low < by_column.high <= 1


def test_same_seed_same_crossed_interval():
    given = crossed(5, 4, 1.0, 1.0, 1.0)
    assert crossed_bootstrap_mean(*given) == crossed_bootstrap_mean(*given)
    assert crossed_bootstrap_mean(*given) != crossed_bootstrap_mean(*given, seed=1)


@pytest.mark.parametrize(
    ("values", "rows", "columns"),
    [([0.3], [0], [0]), ([0.1, 0.2, 0.7], [0, 0, 0], [1, 1, 1]), ([0.1] * 3, [0, 1, 2], [0, 1, 2])],
)
def test_one_group_and_values_without_spread_are_their_own_interval(values, rows, columns):
    mean = float(np.mean(values))
    assert crossed_bootstrap_mean(values, rows, columns) == Interval(mean, mean, mean)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([0], [0, 1, 2], "3 values have 1 rows and 3 columns"),
        ([0, 1, 2], [0], "3 values have 3 rows and 1 columns"),
        ([0, 1], [0, 1], "3 values have 2 rows and 2 columns"),
        ([], [], "3 values have 0 rows and 0 columns"),
    ],
)
def test_groups_that_are_not_of_the_values(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap_mean([0.1, 0.2, 0.7], rows, columns)


def test_crossed_values_that_have_no_mean():
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        crossed_bootstrap_mean([1.0, float("nan")], [0, 1], [0, 1])


def pairs(items: int, seed: int, level: float = 5.0) -> np.ndarray:
    """Values of pairs that are the sum of their items' effects, of deviation 1, above `level`."""
    effects = np.random.default_rng(seed).normal(0, 1, items)
    return level + effects[:, None] + effects[None]


def test_pairs_are_as_many_as_their_items() -> None:
    """The variance of the mean of sums of two effects is four times that of the effects' mean."""
    values = pairs(60, seed=0)
    mean = resample_pair_mean([values])
    assert mean.mean == pytest.approx(values[np.triu_indices(60, 1)].mean())
    interval = mean.to_interval()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 * np.diag(values).std() / 2 / 60**0.5, rel=0.15)


def test_pairs_of_several_sets_count_alike_and_missing_ones_do_not() -> None:
    first, second = np.full((3, 3), 1.0), np.full((4, 4), 2.0)
    second[0, 1] = second[1, 0] = np.nan
    assert resample_pair_mean([first, second]).mean == pytest.approx((3 * 1 + 5 * 2) / 8)
    assert resample_pair_mean([first]).to_interval() == Interval(1.0, 1.0, 1.0)
    assert resample_pair_mean([first]).samples.shape == resample_pair_mean([second]).samples.shape


def test_a_ratio_of_pair_means_holds_its_own_value() -> None:
    ratio = resample_pair_mean([pairs(40, 1, 10.0)]).divide_by(resample_pair_mean([pairs(40, 2)], seed=1)).to_interval()
    assert ratio.low < 2.0 < ratio.high
    assert ratio.low < ratio.mean < ratio.high


@pytest.mark.parametrize("matrices", [[], [np.zeros((1, 1))], [np.full((2, 2), np.nan)]])
def test_without_a_pair_there_is_no_mean(matrices: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="hold no pair with a value: give two items or more"):
        resample_pair_mean(matrices)


def test_groups_are_drawn_whole_and_alike_for_each_value():
    values, groups = [1.0, 1.0, 5.0, 5.0], ["mug", "mug", "shoe", "shoe"]
    mean = resample_group_mean(values, groups)
    assert mean.mean == 3
    assert set(mean.samples.tolist()) == {1.0, 3.0, 5.0}  # never half of a group
    half = resample_group_mean([value / 2 for value in values], groups)
    assert half.divide_by(mean).to_interval() == Interval(0.5, 0.5, 0.5)
    assert resample_group_mean(values, ["a"] * 4).to_interval() == Interval(3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match="4 values have 1 groups: give one each"):
        resample_group_mean(values, ["a"])
