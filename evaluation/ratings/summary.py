"""Results of people's ratings of a challenger, and whether the reward model prefers what people prefer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    wins = agreement.compute_win_rate(judgments, challenger, champion, raters_per_pair=raters_per_pair)
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
    )
