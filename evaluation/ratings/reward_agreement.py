"""The reward model beside people: does it prefer what they prefer, and how far do they agree themselves?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluation.generator.comparison import Row
from evaluation.ratings.agreement import Judgment, compute_pair_agreement, compute_score_agreement, krippendorff_alpha
from evaluation.statistics.intervals import Interval

QUESTION = "preference"
"""What the reward model's overall score answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardAgreement:
    """Shares in 0..1 with their intervals, alpha at most 1; None: too few judgments to say."""

    reward: Interval | None  # of people's preferences, those that the reward model shares
    pair: Interval | None  # of two raters' choices in one pair, those that are the same
    alpha: Interval | None  # Krippendorff's

    @property
    def figures(self) -> dict[str, float]:
        """reward_agreement, pair_agreement and alpha with `_low` and `_high`, those that are known."""
        found = {"reward_agreement": self.reward, "pair_agreement": self.pair, "alpha": self.alpha}
        return {
            name + end: value
            for name, of in found.items()
            if of is not None
            for end, value in (("", of.mean), ("_low", of.low), ("_high", of.high))
        }


def compute_reward_agreement(
    evaluation: Iterable[Row], judgments: Sequence[Judgment], challenger: str
) -> RewardAgreement:
    """Of human judgments that count (evaluation.ratings.agreement).

    The reward model is asked about candidates that `evaluation` (candidate_id, item_id, reward_overall) scored, and
    only where one is by `challenger`, the digest of the composite that holds it: it cannot have learnt from those, for
    they were painted after it was trained. Judgments of other versions tell of the raters alone.
    """
    scored = [row for row in evaluation if row["reward_overall"] is not None]
    return RewardAgreement(
        reward=compute_score_agreement(
            [row for row in judgments if challenger in (row["first_model"], row["second_model"])],
            {row["candidate_id"]: row["reward_overall"] for row in scored},
            {row["candidate_id"]: row["item_id"] for row in scored},
            question=QUESTION,
        ),
        pair=compute_pair_agreement(judgments, QUESTION),
        alpha=krippendorff_alpha(judgments, QUESTION),
    )
