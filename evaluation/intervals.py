"""Confidence intervals of measured means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VALUES_PER_BATCH = 4_000_000
"""Resampled values held at once: 32 MB of float64."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Interval:
    """The mean of independent `values` with its percentile bootstrap interval (Efron 1979), the same for the same seed.

    A single value is its own interval. Raises `ValueError` for no values, a value that is not finite, or a level
    outside 0..1.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise ValueError(f"a mean needs at least one value, in one dimension, not an array of shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{int((~np.isfinite(sample)).sum())} of {sample.size} values are not finite: drop them first")
    if not 0 < level < 1:
        raise ValueError(f"the confidence level is {level}: give a number between 0 and 1, such as 0.95")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, mean, mean)
    # "percentile", not SciPy's default BCa, which is undefined when all values are equal (an IoU of 1.0 everywhere)
    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, VALUES_PER_BATCH // sample.size),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
