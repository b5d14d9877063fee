"""Confidence intervals of measured means, and tests of their differences against chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95  # confidence of the intervals
VALUES_PER_BATCH = 4_000_000  # resampled values held at once: 32 MB of float64
FLIPS = 9999  # random assignments of signs: the smallest p-value is one in ten thousand


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def to_metrics(self, name: str) -> dict[str, float]:
        """Return the mean as `name` and its ends as `name`_low and `name`_high."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}

    def __format__(self, spec: str) -> str:
        """Format as "mean [low, high]", each number by `spec`, .3f if it is empty."""
        mean, low, high = (format(value, spec or ".3f") for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of independent `values` with its percentile bootstrap interval (Efron 1979).

    A single value is its own interval.

    Raises:
        ValueError: For no values, or a value that is not finite.
    """
    from scipy.stats import bootstrap

    sample = check_sample(values)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, mean, mean)
    # "percentile", not SciPy's default BCa, which is undefined when all values are equal (an IoU of 1.0 everywhere)
    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, VALUES_PER_BATCH // sample.size),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def compute_mean_metrics(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of `values` as `name` with the ends of its 95 % interval; nothing if there are no values."""
    return bootstrap_mean(values).to_metrics(name) if values else {}


def crossed_bootstrap_mean(
    values: Sequence[float], rows: Sequence[Hashable], columns: Sequence[Hashable], seed: int = 0
) -> Interval:
    """Return the mean of `values` with the percentile interval of the pigeonhole bootstrap (Owen 2007).

    Values share groups of `rows` and of `columns`, such as products and style images. Groups of both kinds are drawn
    with replacement; a value counts as often as its row was drawn times its column, and draws without a value are left
    out. The variance that groups share is estimated rightly, noise of single values up to three times: a little too
    wide for many groups; too narrow, as every bootstrap, for a handful.

    Raises:
        ValueError: As `bootstrap_mean` does, and unless every value has a row and a column.
    """
    sample = check_sample(values)
    if not len(sample) == len(rows) == len(columns):
        raise ValueError(
            f"{len(sample)} values have {len(rows)} rows and {len(columns)} columns: give each one of both"
        )
    mean = float(sample.mean())
    row_of, column_of = _number_groups(rows), _number_groups(columns)
    shape = int(row_of.max()) + 1, int(column_of.max()) + 1
    if shape == (1, 1) or not np.ptp(sample):
        return Interval(mean, mean, mean)
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (row_of, column_of), 1)
    np.add.at(sums, (row_of, column_of), sample)
    rng = np.random.default_rng(seed)
    drawn_rows, drawn_columns = (rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in shape)
    weights, totals = (((drawn_rows @ cells) * drawn_columns).sum(axis=1) for cells in (counts, sums))
    nonempty = weights > 0
    low, high = np.quantile(totals[nonempty] / weights[nonempty], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


@dataclass(frozen=True, slots=True)
class ResampledMean:
    """A mean, and the means of bootstrap samples."""

    mean: float
    samples: NDArray[np.float64]  # [RESAMPLES]; NaN: nothing was drawn

    def divide_by(self, other: ResampledMean) -> ResampledMean:
        """Return the ratio to a mean of independent values, or of values of the same items in the same draws."""
        return ResampledMean(self.mean / other.mean, self.samples / other.samples)

    def to_interval(self) -> Interval:
        """Return the mean with its percentile interval."""
        low, high = np.nanquantile(self.samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.mean, float(low), float(high))


def resample_group_mean(values: Sequence[float], groups: Sequence[Hashable], seed: int = 0) -> ResampledMean:
    """Return the mean of `values` that share `groups`, such as products: whole groups are drawn with replacement
    (Davison and Hinkley 1997, section 3.8). The same groups have the same draws at one seed.

    Raises:
        ValueError: As `bootstrap_mean` does, and unless every value has a group.
    """
    sample, group_of = check_sample(values), _number_groups(groups)
    if len(sample) != len(group_of):
        raise ValueError(f"{len(sample)} values have {len(group_of)} groups: give one each")
    counts = np.bincount(group_of)
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES)
    return ResampledMean(float(sample.mean()), (drawn @ np.bincount(group_of, sample)) / (drawn @ counts))


def resample_pair_mean(matrices: Sequence[NDArray[np.float64]], seed: int = 0) -> ResampledMean:
    """Return the mean of symmetric values [N, N] of pairs of items, over all matrices, each of items of its own.

    Items are drawn with replacement, and a pair counts as often as both of them were drawn together (Snijders and
    Borgatti 1999, the vertex bootstrap; an item drawn twice is no pair). What is NaN does not count.

    Raises:
        ValueError: No pair has a value.
    """
    rng = np.random.default_rng(seed)
    total, count = 0.0, 0
    totals, counts = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for matrix in matrices:
        values = np.array(matrix, np.float64)
        np.fill_diagonal(values, np.nan)
        is_counted = np.isfinite(values)
        values[~is_counted] = 0
        total, count = total + values.sum(), count + int(is_counted.sum())
        drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
        totals += ((drawn @ values) * drawn).sum(axis=1)
        counts += ((drawn @ is_counted.astype(np.float64)) * drawn).sum(axis=1)
    if not count:
        raise ValueError(f"{len(matrices)} sets of items hold no pair with a value: give two items or more")
    samples = np.divide(totals, counts, out=np.full(RESAMPLES, np.nan), where=counts > 0)
    return ResampledMean(float(total / count), samples)


def compute_sign_flip_p_value(differences: Sequence[float], seed: int = 0) -> float:
    """Return the one-sided p-value of a mean of `differences` above 0 by random signs (Fisher 1935).

    All assignments of signs are tried if they are at most FLIPS, else FLIPS random ones, the observed one counted among
    them (Phipson and Smyth 2010). Raises `ValueError` for no difference, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"a chance needs finite differences, at least one, not {differences}")
    observed, slack = values.sum(), 1e-9 * np.abs(values).sum()
    if 2**values.size <= FLIPS:
        codes = np.arange(2**values.size)[:, None] >> np.arange(values.size) & 1
        return float((((2 * codes - 1) @ values) >= observed - slack).mean())
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (FLIPS, values.size), dtype=np.int8) - 1
    return float((1 + ((signs @ values) >= observed - slack).sum()) / (FLIPS + 1))


def find_significant(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which p-values are significant at false discovery rate `level` (Benjamini and Hochberg 1995).

    Holm's correction (1979) would ask of a slice of a dozen items that every one of them moved.
    """
    from scipy.stats import false_discovery_control

    return [bool(value <= level) for value in false_discovery_control(p_values)] if p_values else []


def _number_groups(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return the number of each value's group, in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def check_sample(values: Sequence[float]) -> NDArray[np.float64]:
    """Return `values` as an array. Raises `ValueError` as `bootstrap_mean` does."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(f"a mean needs at least one value, in one dimension, not an array of shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{int((~np.isfinite(sample)).sum())} of {sample.size} values are not finite: drop them first")
    return sample
