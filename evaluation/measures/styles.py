"""Are the members of a style alike, and more so than chance would have it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import Vectors

DRAWS = 999
"""Random sets that a group is compared with: the smallest chance told apart is one in a thousand."""

MEMBERS = 300
"""Of a group that are looked at, spread evenly: more add nothing to its coherence but time."""


def compute_coherence(vectors: Vectors) -> float | None:
    """Mean cosine between two different vectors, -1..1; None for fewer than two."""
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    own = np.square(vectors, dtype=np.float64).sum()
    return float((total @ total - own) / (count * (count - 1)))


def compute_coherence_p_values(
    vectors: Vectors, groups: Mapping[str, Sequence[int]], seed: int
) -> dict[str, tuple[float, float, float]]:
    """For each group of rows with two or more: its coherence, the mean coherence of as many rows drawn at random, and
    the chance that such a set coheres as much or more.

    Permutation test: the group is counted among the DRAWS random sets (Phipson and Smyth 2010). Random sets are drawn
    once for each size, without replacement.
    """
    drawn: dict[int, NDArray[np.float64]] = {}
    found = {}
    for name, rows in groups.items():
        chosen = (
            rows if len(rows) <= MEMBERS else [rows[at] for at in np.linspace(0, len(rows) - 1, MEMBERS).astype(int)]
        )
        own = compute_coherence(vectors[list(chosen)])
        if own is None:
            continue
        size = len(chosen)
        if size not in drawn:
            drawn[size] = _sample_coherences(vectors, size, np.random.default_rng([seed, size]))
        as_much = int((drawn[size] >= own - 1e-9).sum())
        found[name] = (own, float(drawn[size].mean()), (1 + as_much) / (1 + DRAWS))
    return found


def find_majority(labels: Sequence[str | None]) -> tuple[str | None, float]:
    """The label of most, and the share of those with one that have it; (None, 0.0): none has one."""
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        return None, 0.0
    label = min(counts, key=lambda name: (-counts[name], name))
    return label, counts[label] / counts.total()


def compute_label_agreement(of: Sequence[int], labels: Sequence[str | None]) -> float | None:
    """Adjusted mutual information of clusters and labels where there is one: 1 for the same division, 0 for chance
    (Vinh et al. 2010); None: fewer than two labels are known."""
    from sklearn.metrics import adjusted_mutual_info_score

    known = [(cluster, label) for cluster, label in zip(of, labels, strict=True) if label is not None]
    if len({label for _, label in known}) < 2:
        return None
    return float(adjusted_mutual_info_score([label for _, label in known], [cluster for cluster, _ in known]))


def _sample_coherences(vectors: Vectors, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    found = [
        compute_coherence(vectors[rng.choice(len(vectors), size, replace=False, shuffle=False)]) for _ in range(DRAWS)
    ]
    return np.array(found, dtype=np.float64)
