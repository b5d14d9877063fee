"""Coherence of groups of descriptors, and whether chance would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import Vectors

RANDOM_SETS = 999
"""Random sets that a group is compared with: the smallest p-value is one in a thousand."""

MAX_MEMBERS = 300
"""Members of a group that are compared, at most, spread evenly: more add nothing to its coherence but time."""


class CoherenceTest(NamedTuple):
    """A group's coherence beside that of random sets of its size."""

    coherence: float
    random: float  # mean coherence of the random sets
    p_value: float  # chance that a random set coheres as much or more


def compute_coherence(vectors: Vectors) -> float | None:
    """Return the mean cosine between two different vectors, -1..1; None for fewer than two."""
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    squares = np.square(vectors, dtype=np.float64).sum()
    return float((total @ total - squares) / (count * (count - 1)))


def compare_coherences(vectors: Vectors, groups: Mapping[str, Sequence[int]], seed: int) -> dict[str, CoherenceTest]:
    """Compare the coherence of each group of rows, of two or more, with as many rows drawn at random.

    Permutation test: the group is counted among the random sets (Phipson and Smyth 2010), which are drawn once for
    each size, without replacement.
    """
    random_coherences: dict[int, NDArray[np.float64]] = {}
    tests = {}
    for name, rows in groups.items():
        size = min(len(rows), MAX_MEMBERS)
        members = np.asarray(rows, np.int64)[np.linspace(0, len(rows) - 1, size).astype(int)]
        coherence = compute_coherence(vectors[members])
        if coherence is None:
            continue
        if size not in random_coherences:
            rng = np.random.default_rng([seed, size])
            sets = (rng.choice(len(vectors), size, replace=False, shuffle=False) for _ in range(RANDOM_SETS))
            random_coherences[size] = np.array([compute_coherence(vectors[own]) for own in sets], np.float64)
        as_coherent = int((random_coherences[size] >= coherence - 1e-9).sum())
        random = float(random_coherences[size].mean())
        tests[name] = CoherenceTest(coherence, random, (1 + as_coherent) / (1 + RANDOM_SETS))
    return tests
