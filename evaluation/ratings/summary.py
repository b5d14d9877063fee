"""Results of people's ratings of a challenger, and whether the reward model prefers what people prefer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from canvas.pins.tables import QUESTIONS
from evaluation.generator.comparison import Row
from evaluation.ratings import agreement
from evaluation.ratings.agreement import Judgment
from evaluation.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardAgreement:
    """Shares in 0..1 with their intervals, alpha at most 1; None: too few judgments to say."""

    reward: Interval | None  # of people's preferences, those that the reward model shares
    pair: Interval | None  # of two raters' choices in one pair, those that are the same
    alpha: Interval | None  # Krippendorff's

    @property
    def metrics(self) -> dict[str, float]:
        """Return reward_agreement, pair_agreement and alpha with `_low` and `_high`, where they are defined."""
        intervals = {"reward_agreement": self.reward, "pair_agreement": self.pair, "alpha": self.alpha}
        defined = [interval.to_metrics(name) for name, interval in intervals.items() if interval is not None]
        return {name: value for metrics in defined for name, value in metrics.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionSummary:
    """What people answered to one question, beside the reward model's answers to it; None: too little to say."""

    question: str
    wins: Interval | None  # of the challenger, share of pairs; only where the question is asked about pairs
    challenger: Interval | None  # mean answer about its images shown alone: 0 worst, 1 best
    opponent: Interval | None  # likewise
    alpha: Interval | None  # agreement of raters, Krippendorff's
    reward_in_pairs: Interval | None  # how often the reward model finds that image better which people do
    reward_alone: Interval | None  # the same of two images that were shown alone


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingSummary:
    """What people said of a challenger and of the others that they rated."""

    win_rate: Interval | None  # of the challenger; None: too few people compared the two
    against: str  # what it was compared with
    judgments: int
    raters: int
    agreement: RewardAgreement
    consistency: float | None  # of raters with themselves
    set_aside: Mapping[str, int]  # reason -> judgments
    strengths: Mapping[str, Interval]  # model -> Bradley-Terry log-odds
    questions: Sequence[QuestionSummary]  # those that somebody answered


def compute_reward_agreement(
    evaluation: Iterable[Row], judgments: Sequence[Judgment], challenger: str
) -> RewardAgreement:
    """Compare the reward model with the human judgments that count (evaluation.ratings.agreement).

    The reward model is compared on candidates that `evaluation` (candidate_id, item_id, reward_overall) scored, and
    only where one is by `challenger`, the digest of the composite that holds it: it cannot have learnt from those,
    which were generated after it was trained. Judgments of other versions count for the raters' agreement alone.
    """
    scored = [row for row in evaluation if row["reward_overall"] is not None]
    return RewardAgreement(
        reward=agreement.compute_score_agreement(
            [row for row in judgments if challenger in (row["first_model"], row["second_model"])],
            {row["candidate_id"]: row["reward_overall"] for row in scored},
            {row["candidate_id"]: row["item_id"] for row in scored},
        ),
        pair=agreement.compute_pair_agreement(judgments, agreement.QUESTION),
        alpha=agreement.krippendorff_alpha(judgments, agreement.QUESTION),
    )


def summarize_ratings(
    evaluation: Iterable[Row],
    judgments: Sequence[Judgment],
    challenger: str,
    champion: str | None,
    *,
    raters_per_pair: int,
) -> RatingSummary:
    """Return what `judgments` say of the model of digest `challenger`, against that of digest `champion` if any.

    A pair counts among wins once `raters_per_pair` people have rated it.
    """
    evaluation = list(evaluation)
    wins = agreement.compute_win_rate(judgments, challenger, champion, raters_per_pair=raters_per_pair)
    asked = {row["question"] for row in agreement.select_counted(judgments)}
    names = {challenger: "challenger", champion: "champion"}
    return RatingSummary(
        win_rate=wins.rate if wins else None,
        against="the champion" if champion else "products pasted on another image",
        judgments=wins.judgments if wins else 0,
        raters=wins.raters if wins else 0,
        agreement=compute_reward_agreement(evaluation, judgments, challenger),
        consistency=agreement.compute_consistency(judgments),
        set_aside=Counter(row["set_aside"] for row in judgments if row["set_aside"]),
        strengths={
            names.get(model, model[:10]): strength for model, strength in agreement.fit_strengths(judgments).items()
        },
        questions=[
            _summarize_question(question, evaluation, judgments, challenger, champion, raters_per_pair)
            for question in QUESTIONS
            if question in asked
        ],
    )


def _summarize_question(
    question: str,
    evaluation: Sequence[Row],
    judgments: Sequence[Judgment],
    challenger: str,
    champion: str | None,
    raters_per_pair: int,
) -> QuestionSummary:
    comparisons = [row for row in judgments if challenger in (row["first_model"], row["second_model"])]
    column = f"reward_{'overall' if question == agreement.QUESTION else question}"
    scored = [row for row in evaluation if row[column] is not None]
    scores, items = ({row["candidate_id"]: row[name] for row in scored} for name in (column, "item_id"))
    wins = agreement.compute_win_rate(
        judgments, challenger, champion, raters_per_pair=raters_per_pair, question=question
    )
    return QuestionSummary(
        question=question,
        wins=wins.rate if wins else None,
        challenger=agreement.compute_mean_answer(judgments, question, challenger),
        opponent=agreement.compute_mean_answer(judgments, question, champion),
        alpha=agreement.krippendorff_alpha(judgments, question),
        reward_in_pairs=agreement.compute_score_agreement(comparisons, scores, items, question),
        reward_alone=agreement.compute_alone_agreement(comparisons, question, scores),
    )
