"""Tests of significance: one difference against chance, and which of many stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FLIPS = 9999
"""Random assignments of signs: the smallest p-value is one in ten thousand."""


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
