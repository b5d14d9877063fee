"""The reward model beside raters: on tables as the stages read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from canvas.pins.tables import EVALUATION, JUDGMENTS, read, write
from evaluation.ratings.summary import RewardAgreement, compute_reward_agreement, summarize_ratings
from tests.evaluation.ratings.test_agreement import alone, row

ITEMS = 6


def evaluation(place: Path, better: float, worse: float | None, version: str = "new") -> list[dict[str, Any]]:
    """Two pictures of each item, the new model's of score `better`, the old one's of score `worse`."""
    rows = [
        dict.fromkeys(EVALUATION.names)
        | {"candidate_id": f"{model}-{item}", "item_id": f"e{item // 2}", "reward_overall": score}
        for item in range(ITEMS)
        for model, score in ((version, better), ("old", worse))
    ]
    write(place, [pa.Table.from_pylist(rows, EVALUATION)], EVALUATION)
    return read(place, ["candidate_id", "item_id", "reward_overall"]).to_pylist()


def asked(
    place: Path, scores: list[dict[str, Any]], judgments: list[dict[str, Any]], challenger: str = "new"
) -> RewardAgreement:
    write(place, [pa.Table.from_pylist(judgments, JUDGMENTS)], JUDGMENTS)
    return compute_reward_agreement(scores, read(place).to_pylist(), challenger)


def test_it_agrees_disagrees_or_cannot_tell(tmp_path: Path) -> None:
    judgments = [row(pair, rater, 1.0) for pair in range(ITEMS) for rater in "ab"]
    for number, (better, worse, share) in enumerate(((0.9, 0.2, 1.0), (0.2, 0.9, 0.0), (0.5, 0.5, 0.5))):
        agreement = asked(
            tmp_path / f"said{number}", evaluation(tmp_path / f"scored{number}", better, worse), judgments
        )
        assert agreement.reward is not None
        assert (agreement.reward.low, agreement.reward.mean, agreement.reward.high) == (share, share, share)
        assert agreement.pair is not None
        assert agreement.pair.mean == 1.0


def test_items_count_alike_and_are_resampled(tmp_path: Path) -> None:
    """It is right on both pairs of e0, one of them rated six times; on one of two pairs of e1; on none of e2."""
    judgments = [row(0, rater, 1.0) for rater in "abcdef"] + [
        row(pair, "a", float(pair < 3)) for pair in range(1, ITEMS)
    ]
    agreement = asked(tmp_path / "said", evaluation(tmp_path / "scored", 0.9, 0.2), judgments)
    assert agreement.reward is not None
    assert agreement.reward.mean == pytest.approx(0.5)
    assert (agreement.reward.low, agreement.reward.high) == (0.0, 1.0)
    assert agreement.metrics["reward_agreement"] == pytest.approx(0.5)


def test_no_difference_is_no_preference(tmp_path: Path) -> None:
    scores = evaluation(tmp_path / "scored", 0.9, 0.2)
    ties = [row(pair, rater, 0.5) for pair in range(3) for rater in "ab"]
    assert asked(tmp_path / "ties", scores, ties) == RewardAgreement(reward=None, pair=None, alpha=None)
    # a and b choose alike on pair 3, differently on pair 4; c chooses neither
    judgments = [row(3, "a", 1.0), row(3, "b", 1.0), row(4, "a", 1.0), row(4, "b", 0.0), row(4, "c", 0.5)]
    agreement = asked(tmp_path / "said", scores, ties + judgments)
    assert agreement.reward is not None
    assert agreement.pair is not None
    assert agreement.reward.mean == pytest.approx((1.0 + 0.5) / 2)
    assert agreement.pair.mean == 0.5


def test_without_ratings_nothing_is_said(tmp_path: Path) -> None:
    agreement = asked(tmp_path / "said", evaluation(tmp_path / "scored", 0.9, 0.2), [])
    assert agreement == RewardAgreement(reward=None, pair=None, alpha=None)
    assert agreement.metrics == {}


@pytest.mark.parametrize(
    "changed", [{"set_aside": "failed"}, {"attention": True}, {"source": "synthetic"}, {"question": "fidelity"}]
)
def test_what_does_not_count(tmp_path: Path, changed: dict[str, Any]) -> None:
    judgments = [row(pair, "a", 1.0, **changed) for pair in range(ITEMS)]
    assert asked(tmp_path / "said", evaluation(tmp_path / "scored", 0.9, 0.2), judgments).reward is None


def test_ratings_of_other_versions_tell_of_raters_only(tmp_path: Path) -> None:
    judgments = [row(pair, rater, float(pair < 4)) for pair in range(ITEMS) for rater in "ab"]
    agreement = asked(tmp_path / "said", evaluation(tmp_path / "scored", 0.9, 0.2, version="next"), judgments)
    assert agreement.reward is None
    assert agreement.metrics.keys() == {
        f"{name}{end}" for name in ("pair_agreement", "alpha") for end in ("", "_low", "_high")
    }
    assert agreement.metrics["pair_agreement"] == agreement.metrics["alpha"] == 1.0


def test_it_is_not_asked_about_pictures_that_it_may_have_learnt_from(tmp_path: Path) -> None:
    """A champion's, on which it is evaluated again, were rated before the challenger and its reward model were made."""
    judgments = [row(pair, "a", 1.0) for pair in range(ITEMS)]
    scores = evaluation(tmp_path / "scored", 0.9, 0.2)
    assert asked(tmp_path / "said", scores, judgments, challenger="next").reward is None
    assert asked(tmp_path / "again", scores, judgments, challenger="new").reward is not None


def test_a_picture_without_a_score_is_left_out(tmp_path: Path) -> None:
    judgments = [row(pair, "a", 1.0) for pair in range(ITEMS)]
    assert asked(tmp_path / "null", evaluation(tmp_path / "scored", 0.9, None), judgments).reward is None
    assert asked(tmp_path / "nan", evaluation(tmp_path / "spoilt", 0.9, float("nan")), judgments).reward is None


def test_every_question_that_people_answered_is_summarized() -> None:
    """The new model's images have fewer defects and are less nice; its reward model knows the first alone."""
    scores = [
        dict.fromkeys(EVALUATION.names)
        | {"candidate_id": f"{model}-{item}", "item_id": f"e{item}", "reward_overall": overall}
        | {"reward_defects": 0.9 - item / 10, "reward_aesthetics": None}
        for item in range(ITEMS)
        for model, overall in (("new", 0.9), ("old", 0.2))
    ]
    judgments = [row(pair, "a", 1.0) for pair in range(ITEMS)]
    for item in range(ITEMS):
        judgments += [alone(item, "a", float(item < 4)), alone(item, "a", float(item < 2), "old")]
        judgments += [
            alone(item, "a", 0.25, question="aesthetics"),
            alone(item, "a", 1.0, "old", question="aesthetics"),
        ]
    summary = summarize_ratings(scores, judgments, "new", "old", raters_per_pair=1)
    assert [asked.question for asked in summary.questions] == ["defects", "aesthetics", "preference"]
    defects, aesthetics, preference = summary.questions
    for share, mean in (
        (defects.challenger, 4 / 6),
        (defects.opponent, 2 / 6),
        (defects.reward_alone, 1.0),
        (aesthetics.challenger, 0.25),
        (aesthetics.opponent, 1.0),
        (preference.wins, 1.0),
        (preference.reward_in_pairs, 1.0),
    ):
        assert share is not None
        assert share.mean == pytest.approx(mean)
    assert (defects.wins, defects.reward_in_pairs, aesthetics.reward_alone, preference.challenger) == (None,) * 4
    assert summarize_ratings(scores, judgments[:ITEMS], "new", "old", raters_per_pair=1).questions == [preference]
