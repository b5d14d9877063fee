"""Statistics of people's judgments: agreement of raters with each other and with a score, and which model wins.

Rows are those of tables.JUDGMENTS. Only human ones that are neither set aside nor attention checks count. Judgments of
one pair of candidates depend on each other, so that intervals are over pairs, not judgments. Of a pair that a rater
saw twice the first answer counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics.intervals import LEVEL, Interval, bootstrap_mean
from evaluation.statistics.sequences import compute_confidence_sequence

Judgment = Mapping[str, Any]
Pair = tuple[str, str]

QUESTION = "preference"  # which image is better, all in all: it decides who wins, and the reward model answers it
NO_MODEL = "no model"  # the digest of what no model generated: products pasted on another image


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often people prefer one model's images to another's; a tie is half a win.

    A pair counts as soon as enough people have rated it, by the mean of the first of them: what they think of it later
    changes nothing.
    """

    rate: Interval | None  # over the pairs that count, at every look at once; None: none does
    pairs: int  # that count
    judgments: int  # of these pairs
    waiting: int  # judgments of pairs that too few people have rated
    raters: int  # who rated any pair


def select_counted(rows: Iterable[Judgment]) -> list[Judgment]:
    """Select the judgments that a gate may count: human, not set aside, no attention check."""
    return [row for row in rows if row["source"] == "human" and row["set_aside"] is None and not row["attention"]]


def select_first_answers(rows: Iterable[Judgment]) -> list[Judgment]:
    """Select what each rater said of a pair, or of an image alone, the first time, in the order of time."""
    first: dict[tuple[str, str, Pair], Judgment] = {}
    for row in sorted(rows, key=_get_time):
        first.setdefault((row["rater"], row["question"], orient_judgment(row)[0]), row)
    return list(first.values())


def orient_judgment(row: Judgment) -> tuple[Pair, float]:
    """Return the candidates of a judgment, sorted, and its value for the first of them; ("", id): rated alone."""
    first, second = row["first"], row["second"]
    if second is None:
        return ("", first), row["value"]
    return ((first, second), row["value"]) if first < second else ((second, first), 1 - row["value"])


def krippendorff_alpha(rows: Iterable[Judgment], question: str) -> Interval | None:
    """Compute the agreement of raters on `question` beyond chance: 1 perfect, 0 chance, below 0 against each other.

    alpha = 1 - D_observed / D_expected (Krippendorff, Content Analysis, 2004) at the ordinal level: a tie lies between
    the two choices. None: no pair was judged by two raters, or all said the same of every pair, and agreement is not
    defined.
    """
    table = _tabulate_by_rater([row for row in select_counted(rows) if row["question"] == question])
    table = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    alpha = _compute_alpha(table)
    if alpha is None:
        return None
    rng = np.random.default_rng(0)
    resampled = (_compute_alpha(table[:, rng.integers(0, table.shape[1], table.shape[1])]) for _ in range(500))
    low, high = _compute_quantiles([value for value in resampled if value is not None])
    return Interval(alpha, float(low), float(high))


def compute_pair_agreement(rows: Iterable[Judgment], question: str) -> Interval | None:
    """Compute how often two raters chose the same image of a pair: 0..1, 0.5 by chance, with its interval.

    Of a pair, (C(a, 2) + C(b, 2)) / C(a + b, 2) where a raters chose the one and b the other; the mean over pairs. "No
    difference" is no choice. None: no pair has two choices.
    """
    choices = _tabulate_by_rater(_select_pairwise(rows, question)).T
    ones, others = ((choices == value).sum(axis=1) for value in (1.0, 0.0))
    both = ones + others
    same = (ones * (ones - 1) + others * (others - 1))[both >= 2] / (both * (both - 1))[both >= 2]
    return bootstrap_mean([float(share) for share in same]) if same.size else None


def compute_score_agreement(
    rows: Iterable[Judgment], scores: Mapping[str, float], items: Mapping[str, str], question: str = QUESTION
) -> Interval | None:
    """Compute how often the image of a pair that people find better has the higher score: 0..1, 0.5 by chance, with its
    interval.

    scores, items: candidate_id -> its score, its item. Equal scores are half right; "no difference" is
    no preference. Images of one item depend on each other: each item counts by its mean, and the interval resamples
    items. None: nobody preferred one of two candidates whose scores are known and finite.
    """
    by_item: dict[str, list[float]] = {}
    for row in select_first_answers(select_counted(rows)):
        first, second = (scores.get(row[side], math.nan) for side in ("first", "second"))
        is_preference = row["question"] == question and row["value"] != 0.5
        if is_preference and all(map(math.isfinite, (first, second, row["value"]))):
            right = 0.5 if first == second else float((first > second) == (row["value"] > 0.5))
            by_item.setdefault(items[row["first"]], []).append(right)
    return bootstrap_mean([float(np.mean(right)) for right in by_item.values()]) if by_item else None


def compute_win_rate(
    rows: Iterable[Judgment], model: str, against: str | None, *, raters_per_pair: int, question: str = QUESTION
) -> WinRate | None:
    """Compute how often `model` wins against another (digests; None: pasted products), with a 95 % interval.

    The interval holds at every look at once, so that whoever looks again and again while ratings come in, and stops
    when the result pleases, is not misled more often. None: nobody has compared the two.

    Args:
        raters_per_pair: People who must have rated a pair for it to count.
        question: Asked about the pairs.
    """
    answers = [
        row
        for row in select_first_answers(_select_pairwise(rows, question))
        if {row["first_model"], row["second_model"]} == {model, against}
    ]
    if not answers or model == against:
        return None
    wins: dict[Pair, list[float]] = {}
    for row in answers:
        win = row["value"] if row["first_model"] == model else 1 - row["value"]
        wins.setdefault(orient_judgment(row)[0], []).append(win)
    values = [
        float(np.mean(pair_wins[:raters_per_pair])) for pair_wins in wins.values() if len(pair_wins) >= raters_per_pair
    ]
    return WinRate(
        rate=compute_confidence_sequence(values) if values else None,
        pairs=len(values),
        judgments=len(values) * raters_per_pair,
        waiting=sum(len(pair_wins) for pair_wins in wins.values() if len(pair_wins) < raters_per_pair),
        raters=len({row["rater"] for row in answers}),
    )


def compute_mean_answer(rows: Iterable[Judgment], question: str, model: str | None) -> Interval | None:
    """Compute the mean of what people say of images of `model` (its digest; None: pasted products) that they see alone:
    0 worst, 1 best, with its interval.

    An image counts by the mean of its raters, and the interval resamples images. None: nobody was asked about one.
    """
    answers: dict[Pair, list[float]] = {}
    for row in select_first_answers(select_counted(rows)):
        if row["question"] == question and row["second"] is None and row["first_model"] == model:
            answers.setdefault(orient_judgment(row)[0], []).append(row["value"])
    return bootstrap_mean([float(np.mean(image_answers)) for image_answers in answers.values()]) if answers else None


def compute_alone_agreement(rows: Iterable[Judgment], question: str, scores: Mapping[str, float]) -> Interval | None:
    """Compute, of two images that people saw alone and judged unlike, how often the better one has the higher score:
    0..1, 0.5 by chance (the area under the ROC curve), with its interval, which resamples images.

    scores: candidate_id -> its score; those without a finite one are left out. None: no two were judged unlike.
    """
    answers: dict[str, list[float]] = {}
    for row in select_first_answers(select_counted(rows)):
        if row["question"] == question and row["second"] is None and math.isfinite(scores.get(row["first"], math.nan)):
            answers.setdefault(row["first"], []).append(row["value"])
    judged = np.array([float(np.mean(image_answers)) for image_answers in answers.values()])
    scored = np.array([scores[name] for name in answers])
    better, gain = np.subtract.outer(judged, judged), np.subtract.outer(scored, scored)
    right = np.where(gain == 0, 0.5, (gain > 0) == (better > 0))
    is_unlike = better != 0
    concordance = [float(row[rows].mean()) for row, rows in zip(right, is_unlike, strict=True) if rows.any()]
    return bootstrap_mean(concordance) if concordance else None


def fit_strengths(rows: Iterable[Judgment]) -> dict[str, Interval]:
    """Fit the Bradley-Terry strengths of all models that met (digest -> log-odds, their mean 0), with intervals.

    P(i beats j) = 1 / (1 + exp(s_j - s_i)) (Bradley and Terry 1952), fitted by choix with a weak prior (a tenth of a
    win either way for each two models), without which a model that never lost would have no finite strength.
    """
    pairwise = select_first_answers(_select_pairwise(rows, QUESTION))
    models = sorted({_get_model(row, side) for row in pairwise for side in ("first", "second")})
    if len(models) < 2:
        return {}
    place = {model: index for index, model in enumerate(models)}
    per_pair: dict[Pair, NDArray[np.float64]] = {}
    for row in pairwise:
        first, second = place[_get_model(row, "first")], place[_get_model(row, "second")]
        wins = per_pair.setdefault(orient_judgment(row)[0], np.zeros((len(models), len(models))))
        wins[first, second] += row["value"]
        wins[second, first] += 1 - row["value"]
    stacked = np.stack(list(per_pair.values()))
    rng, count = np.random.default_rng(0), len(stacked)
    resampled = [_fit_bradley_terry(stacked[rng.integers(0, count, count)].sum(axis=0)) for _ in range(200)]
    low, high = _compute_quantiles(resampled)
    best = _fit_bradley_terry(stacked.sum(axis=0))
    return {model: Interval(float(best[k]), float(low[k]), float(high[k])) for model, k in place.items()}


def compute_consistency(rows: Iterable[Judgment]) -> float | None:
    """Compute how often a rater who sees a pair again, sides swapped, says the same; None: nobody saw one twice."""
    answers: dict[tuple[str, str, Pair], list[float]] = {}
    for row in select_counted(rows):
        if row["second"] is not None:
            pair, value = orient_judgment(row)
            answers.setdefault((row["rater"], row["question"], pair), []).append(value)
    twice = [values for values in answers.values() if len(values) > 1]
    return float(np.mean([len(set(values)) == 1 for values in twice])) if twice else None


def _select_pairwise(rows: Iterable[Judgment], question: str) -> list[Judgment]:
    return [row for row in select_counted(rows) if row["question"] == question and row["second"] is not None]


def _tabulate_by_rater(rows: Sequence[Judgment]) -> NDArray[np.float64]:
    """Return raters x pairs, as preference for the pair's first id; NaN: not rated."""
    raters = {rater: place for place, rater in enumerate(sorted({row["rater"] for row in rows}))}
    pairs = {pair: place for place, pair in enumerate(sorted({orient_judgment(row)[0] for row in rows}))}
    table = np.full((len(raters), len(pairs)), np.nan)
    for row in select_first_answers(rows):
        pair, value = orient_judgment(row)
        table[raters[row["rater"]], pairs[pair]] = value
    return table


def _compute_alpha(table: NDArray[np.float64]) -> float | None:
    import krippendorff

    if not table.shape[1] or len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    return float(krippendorff.alpha(table, level_of_measurement="ordinal"))


def _fit_bradley_terry(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    import choix

    prior = 0.1 * (1 - np.eye(len(wins)))
    fitted: NDArray[np.float64] = choix.ilsr_pairwise_dense(wins + prior)
    return fitted - fitted.mean()


def _compute_quantiles(resampled: Sequence[Any]) -> Any:
    tail = (1 - LEVEL) / 2
    return np.quantile(np.asarray(resampled), [tail, 1 - tail], axis=0)


def _get_time(row: Judgment) -> tuple[float, str]:
    """Return when a judgment was given, and its item for those that do not say."""
    time = row.get("timestamp")
    return (math.inf if time is None else time.timestamp(), row["item_id"])


def _get_model(row: Judgment, side: str) -> str:
    return row[f"{side}_model"] or NO_MODEL
