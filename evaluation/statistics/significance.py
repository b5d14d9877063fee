"""Is a difference more than chance, and which of many are?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FLIPS = 9999
"""Random assignments of signs: the smallest chance that is told apart is one in ten thousand."""


def compute_sign_flip_p_value(differences: Sequence[float], seed: int = 0) -> float:
    """The chance of a mean as high as that of `differences`, or higher, if each could as well have had the other sign.

    One-sided randomisation test for pairs (Fisher 1935): all signs are tried if they are no more than FLIPS, else so
    many random ones, counting what was observed as one of them (Phipson and Smyth 2010). Raises `ValueError` for none,
    or one that is not finite.
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


def find_significant(chances: Sequence[float], level: float) -> list[bool]:
    """Which of several findings stand (Benjamini and Hochberg 1995): if none is true, none stands with probability
    1 - `level`; among those that stand, a share of at most `level` is expected to be false. Holm's correction (1979)
    would ask of a slice of a dozen items that every one of them moved."""
    from scipy.stats import false_discovery_control

    return [bool(value <= level) for value in false_discovery_control(chances)] if chances else []
