"""Confidence sequences: intervals that hold at every look at growing data, so that looking again costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics.intervals import LEVEL, Interval, check_sample

STAKES = np.arange(1, 100) / 100
"""Shares of the capital that are bet; the mean over them needs no tuning to the data."""

SMALLEST_MEAN = 1e-6
"""Mean below which a bound is 0."""


def compute_confidence_sequence(values: Sequence[float]) -> Interval:
    """Return the mean of independent `values` in 0..1 with an interval that holds for all their numbers at once.

    Who bets a share c of the capital that the mean is above m has K(m) = prod(1 + c (x / m - 1)) after the values x. If
    the mean is m or less, the mean of K over STAKES ever reaches 2 / (1 - LEVEL) with a chance of (1 - LEVEL) / 2 at
    most (Ville 1939), so that a mean at which it does is ruled out (Waudby-Smith and Ramdas 2024, "Estimating means of
    bounded random variables by betting", section 4). K does not depend on the order of the values.

    Raises:
        ValueError: For no values, or one that is not in 0..1.
    """
    sample = check_sample(values)
    if sample.min() < 0 or sample.max() > 1:
        raise ValueError(f"values lie between {sample.min():g} and {sample.max():g}: a share of wins lies in 0..1")
    return Interval(float(sample.mean()), _find_lower_bound(sample), 1 - _find_lower_bound(1 - sample))


def _find_lower_bound(sample: NDArray[np.float64]) -> float:
    """Return the smallest mean that is not ruled out; the capital falls as the mean grows."""
    from scipy.optimize import brentq
    from scipy.special import logsumexp

    def compute_excess(mean: float) -> float:
        growth = np.log1p(STAKES[:, None] * (sample / mean - 1)).sum(axis=1)
        return float(logsumexp(growth) - np.log(len(STAKES)) - np.log(2 / (1 - LEVEL)))

    if compute_excess(SMALLEST_MEAN) <= 0:
        return 0.0
    return float(brentq(compute_excess, SMALLEST_MEAN, max(float(sample.mean()), 2 * SMALLEST_MEAN)))
