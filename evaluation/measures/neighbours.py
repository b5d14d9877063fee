"""Do the nearest neighbours of a picture share its label?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.measures.retrieval import find_hits
from evaluation.statistics.intervals import bootstrap_mean

KS = (1, 10)

ROWS_AT_ONCE = 1000
"""Queries: similarities of so many with every candidate are in memory."""


def compute_label_recall(
    vectors: NDArray[np.float32],
    labels: Sequence[str | None],
    asked: Sequence[int] | None = None,
    ks: Sequence[int] = KS,
) -> Mapping[str, float]:
    """Recall@k (a neighbour of the same label among the k nearest by cosine; ties count against it), with 95 %
    intervals, of unit vectors [N, E]. `queries`: rows of `asked` (None: all) whose label another row shares; all rows
    are candidates. Nothing but that count if there is none.
    """
    counts = Counter(label for label in labels if label is not None)
    rows = range(len(labels)) if asked is None else asked
    asking = [row for row in rows if (label := labels[row]) is not None and counts[label] > 1]
    queries = np.array(asking, np.int64)
    figures: dict[str, float] = {"queries": len(queries)}
    if not len(queries):
        return figures
    number = {label: at for at, label in enumerate(counts)}
    of = np.array([-1 if label is None else number[label] for label in labels])
    found = {k: np.zeros(0, bool) for k in ks}
    for first in range(0, len(queries), ROWS_AT_ONCE):
        some = queries[first : first + ROWS_AT_ONCE]
        similarity = vectors[some] @ vectors.T
        answers = of[some][:, None] == of[None, :]
        for matrix, none in ((similarity, -np.inf), (answers, False)):  # a pin does not find itself
            matrix[np.arange(len(some)), some] = none
        for k in ks:
            found[k] = np.concatenate([found[k], find_hits(similarity, answers, k)])
    for k in ks:
        recall = bootstrap_mean(found[k].astype(float).tolist())
        key = f"recall_at_{k}"
        figures |= {key: recall.mean, f"{key}_low": recall.low, f"{key}_high": recall.high}
    return figures


def find_nearest(vectors: NDArray[np.float32], row: int, count: int) -> list[int]:
    """The `count` rows most similar to `row`, itself left out."""
    similarity = vectors @ vectors[row]
    similarity[row] = -np.inf
    return [int(place) for place in np.argsort(-similarity, kind="stable")[:count]]
