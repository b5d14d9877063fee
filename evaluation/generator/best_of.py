"""What choosing among candidates is worth, to judges who did not choose.

Arrays have a row an item (a product and a prompt) and a column a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics.intervals import Interval, bootstrap_mean

Values = NDArray[np.float64]


def score_best_of(scores: Values, judged: Values, count: int) -> Values:
    """What the judge says of the best of `count` candidates by `scores`, the mean over all disjoint groups of `count`
    candidates in their order: one value an item. Raises `ValueError` if there are not so many."""
    if not 1 <= count <= scores.shape[1]:
        raise ValueError(f"the best of {count} among {scores.shape[1]} candidates: give 1 or more, up to all of them")
    groups = scores.shape[1] // count
    chosen = scores[:, : groups * count].reshape(len(scores), groups, count).argmax(axis=2)
    said = judged[:, : groups * count].reshape(len(scores), groups, count)
    return np.asarray(np.take_along_axis(said, chosen[..., None], axis=2)[..., 0].mean(axis=1))


def select_by_halving(scores: Mapping[int, Values], final: Values, schedule: Mapping[int, int]) -> NDArray[np.int64]:
    """Which candidate of each item is left by successive halving: after each step of `schedule` so many by the
    `scores` of that step, at the end the best by `final`."""
    left = np.ones(final.shape, bool)
    for step, count in sorted(schedule.items()):
        ranked = np.argsort(-np.where(left, scores[step], -np.inf), axis=1, kind="stable")
        left = np.zeros_like(left)
        np.put_along_axis(left, ranked[:, :count], True, axis=1)
    return np.asarray(np.where(left, final, -np.inf).argmax(axis=1))


def compute_lift(better: Values, worse: Values) -> Interval:
    """How much the judge prefers the first, of the same items, with a 95 % interval over items."""
    return bootstrap_mean(list(better - worse))


def compute_rank_agreement(guessed: Values, final: Values) -> float:
    """Mean over items of Spearman's rank correlation, -1 to 1; items whose candidates are all alike do not count.

    Raises `ValueError` if none counts."""
    from scipy.stats import spearmanr

    found = [
        float(spearmanr(one, other).statistic)
        for one, other in zip(guessed, final, strict=True)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    if not found:
        raise ValueError("all candidates of every item have the same score: there are no ranks to compare")
    return float(np.mean(found))


def select_scores(judged: Values, chosen: Sequence[int] | NDArray[np.int64]) -> Values:
    """What the judge says of the chosen candidate of each item."""
    return np.asarray(judged[np.arange(len(judged)), np.asarray(chosen)])
