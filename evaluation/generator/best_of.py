"""What selection among candidates gains, by judges that did not select.

Arrays have a row an item (a product and a prompt) and a column a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def score_best_of(scores: Values, judged: Values, count: int) -> Values:
    """Return the judge's value of the best of `count` candidates by `scores`, for each item.

    It is the mean over all disjoint groups of `count` candidates in their order. Raises `ValueError` if there are fewer
    candidates.
    """
    if not 1 <= count <= scores.shape[1]:
        raise ValueError(f"the best of {count} among {scores.shape[1]} candidates: give 1 or more, up to all of them")
    groups = scores.shape[1] // count
    grouped, values = (table[:, : groups * count].reshape(-1, groups, count) for table in (scores, judged))
    best = grouped.argmax(axis=2)[..., None]
    return np.asarray(np.take_along_axis(values, best, axis=2)[..., 0].mean(axis=1))


def select_by_halving(scores: Mapping[int, Values], final: Values, schedule: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the index of the candidate of each item that successive halving selects.

    After each step of `schedule` its number of candidates go on, by the `scores` of that step; at the end the best by
    `final` is left.
    """
    left = np.ones(final.shape, bool)
    for step, count in sorted(schedule.items()):
        ranked = np.argsort(-np.where(left, scores[step], -np.inf), axis=1, kind="stable")
        left = np.zeros_like(left)
        np.put_along_axis(left, ranked[:, :count], True, axis=1)
    return np.asarray(np.where(left, final, -np.inf).argmax(axis=1))


def compute_rank_agreement(guessed: Values, final: Values) -> float:
    """Return the mean over items of Spearman's rank correlation, -1 to 1.

    Items whose candidates are all alike do not count. Raises `ValueError` if none counts.
    """
    from scipy.stats import spearmanr

    correlations = [
        float(spearmanr(first, second).statistic)
        for first, second in zip(guessed, final, strict=True)
        if np.ptp(first) > 0 and np.ptp(second) > 0
    ]
    if not correlations:
        raise ValueError("all candidates of every item have the same score: there are no ranks to compare")
    return float(np.mean(correlations))


def select_scores(judged: Values, chosen: Sequence[int] | NDArray[np.int64]) -> Values:
    """Return the judge's value of the chosen candidate of each item."""
    return np.asarray(judged[np.arange(len(judged)), np.asarray(chosen)])
