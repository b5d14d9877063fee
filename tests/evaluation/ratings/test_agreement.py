from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from evaluation.ratings.agreement import (
    WinRate,
    compute_alone_agreement,
    compute_consistency,
    compute_mean_answer,
    compute_win_rate,
    fit_strengths,
    krippendorff_alpha,
)
from evaluation.statistics.intervals import Interval


def row(pair: int, rater: str, value: float, **changed: Any) -> dict[str, Any]:
    """`value` for the new model, which stands on the left of even pairs."""
    sides = ("new", "old") if pair % 2 == 0 else ("old", "new")
    return {
        "item_id": f"i{pair:03d}",
        "rater": rater,
        "kind": "pairwise",
        "question": "preference",
        "value": value if pair % 2 == 0 else 1 - value,
        "first": f"{sides[0]}-{pair}",
        "second": f"{sides[1]}-{pair}",
        "first_model": sides[0],
        "second_model": sides[1],
        "source": "human",
        "attention": False,
        "set_aside": None,
    } | changed


def wins(chance: float, pairs: int = 60, raters: str = "ab", seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [row(pair, rater, float(random.random() < chance)) for pair in range(pairs) for rater in raters]


def win_rate(rows: list[dict[str, Any]], model: str = "new", against: str | None = "old", raters: int = 1) -> WinRate:
    rate = compute_win_rate(rows, model, against, raters_per_pair=raters)
    assert rate is not None
    return rate


def interval(wins: WinRate) -> Interval:
    assert wins.rate is not None
    return wins.rate


def test_a_better_model_a_worse_one_and_a_tie() -> None:
    better, worse = win_rate(wins(0.8), raters=2), win_rate(wins(0.2), raters=2)
    tie = interval(win_rate([row(pair, "a", 0.5) for pair in range(20)]))
    assert interval(better).low > 0.5 > interval(worse).high
    assert tie.low < tie.mean == 0.5 < tie.high
    assert (better.pairs, better.judgments, better.waiting, better.raters) == (60, 120, 0, 2)
    backwards = win_rate(wins(0.8), "old", "new", raters=2)
    assert interval(backwards).mean == pytest.approx(1 - interval(better).mean)


def test_raters_who_say_the_same_do_not_narrow_the_interval() -> None:
    alone = win_rate([row(pair, "a", float(pair % 3 > 0)) for pair in range(30)])
    crowd = win_rate([row(pair, r, float(pair % 3 > 0)) for pair in range(30) for r in "abcdef"], raters=6)
    assert crowd.rate == alone.rate


def test_what_a_rater_says_again_counts_for_nothing() -> None:
    once = [row(pair, rater, float(pair % 4 > 0)) for pair in range(30) for rater in "ab"]
    again = [
        row(pair, rater, 1.0, item_id=f"x{pair}-{turn}") for pair in range(30) for rater in "ab" for turn in range(20)
    ]
    assert win_rate([*again, *once], raters=2) == win_rate(once, raters=2)
    assert fit_strengths([*again, *once]) == fit_strengths(once)


def test_a_pair_counts_by_the_first_people_and_only_once_there_are_enough() -> None:
    def day(number: int) -> datetime:
        return datetime(2026, 11, number, tzinfo=UTC)

    alone = [row(pair, "a", 1.0, timestamp=day(1)) for pair in range(30)]
    result = win_rate(alone, raters=2)
    assert (result.rate, result.pairs, result.judgments, result.waiting, result.raters) == (None, 0, 0, 30, 1)
    both = [*alone, *(row(pair, "b", float(pair % 2), timestamp=day(2)) for pair in range(20))]
    result = win_rate(both, raters=2)
    assert (result.pairs, result.judgments, result.waiting) == (20, 40, 10)
    assert interval(result).mean == pytest.approx(0.75)
    later = [row(pair, "0", 0.0, timestamp=day(3)) for pair in range(20)]
    assert win_rate([*later, *both], raters=2).rate == result.rate


@pytest.mark.parametrize(
    "changed", [{"source": "synthetic"}, {"set_aside": "failed"}, {"attention": True}, {"question": "fidelity"}]
)
def test_what_does_not_count_is_not_counted(changed: dict[str, Any]) -> None:
    assert compute_win_rate([row(0, "a", 1.0, **changed)], "new", "old", raters_per_pair=1) is None


def test_ratings_of_other_models_are_no_ratings_of_these() -> None:
    assert compute_win_rate(wins(0.8), "newer", "old", raters_per_pair=1) is None
    assert compute_win_rate(wins(0.8), "new", None, raters_per_pair=1) is None
    assert compute_win_rate([], "new", "old", raters_per_pair=1) is None
    result = win_rate([row(pair, "a", 1.0, first_model=None, first="paste") for pair in (1, 3)], against=None)
    assert (interval(result).mean, result.pairs) == (1.0, 2)


def alone(image: int, rater: str, value: float, model: str | None = "new", **changed: Any) -> dict[str, Any]:
    """What somebody said of an image that stood alone."""
    answer = {"kind": "absolute", "question": "defects", "value": value, "first": f"{model}-{image}"}
    return row(0, rater, 0.0) | answer | {"second": None, "first_model": model, "second_model": None} | changed


def test_images_alone_are_no_pairs_with_what_no_model_made() -> None:
    answers = [alone(image, "a", 1.0, question="preference") for image in range(4)]
    assert compute_win_rate(answers, "new", None, raters_per_pair=1) is None


def test_pairs_may_be_asked_about_anything() -> None:
    others = [row(pair, "a", 1.0, question="fidelity") for pair in range(4) if pair % 2 == 0]
    result = compute_win_rate([*wins(0.2), *others], "new", "old", raters_per_pair=1, question="fidelity")
    assert result is not None
    assert (interval(result).mean, result.pairs) == (1.0, 2)


def test_an_image_alone_counts_by_the_mean_of_its_raters() -> None:
    answers = [alone(0, "a", 1.0), alone(0, "b", 0.0), alone(1, "a", 1.0), alone(2, "a", 0.0, "old")]
    again = alone(0, "a", 0.0, item_id="later")  # of one rater the first answer counts
    mean = compute_mean_answer([*answers, again], "defects", "new")
    assert mean is not None
    assert mean.mean == pytest.approx((0.5 + 1) / 2)
    others = [compute_mean_answer(answers, "defects", model) for model in ("old", None)]
    assert others[0] is not None
    assert (others[0].mean, others[1]) == (0.0, None)
    assert compute_mean_answer(answers, "aesthetics", "new") is None
    assert compute_mean_answer([alone(0, "a", 1.0, set_aside="failed")], "defects", "new") is None


def test_a_score_agrees_with_images_alone_where_the_better_one_has_more() -> None:
    answers = [alone(image, "a", value) for image, value in enumerate((1.0, 1.0, 0.0))]
    for scores, share in (((0.9, 0.8, 0.1), 1.0), ((0.1, 0.2, 0.9), 0.0), ((0.5, 0.5, 0.5), 0.5)):
        agreement = compute_alone_agreement(
            answers, "defects", {f"new-{place}": value for place, value in enumerate(scores)}
        )
        assert agreement is not None
        assert agreement.mean == share
    assert compute_alone_agreement(answers, "defects", {"new-0": 0.9, "new-1": 0.1, "new-2": float("nan")}) is None
    assert compute_alone_agreement(answers, "fidelity", {"new-0": 0.9, "new-2": 0.1}) is None


def test_agreement_is_one_zero_and_below() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 80)
    same = [row(pair, rater, float(truth[pair])) for pair in range(80) for rater in "ab"]
    chance = wins(0.5, 200)
    against = [row(pair, rater, float(truth[pair] ^ (rater == "b"))) for pair in range(80) for rater in "ab"]
    agreeing, guessing, fighting = (krippendorff_alpha(rows, "preference") for rows in (same, chance, against))
    assert agreeing is not None
    assert guessing is not None
    assert fighting is not None
    assert agreeing.mean == pytest.approx(1)
    assert guessing.low < 0 < guessing.high
    assert fighting.high < 0


def test_agreement_needs_two_raters_who_differ_somewhere() -> None:
    assert krippendorff_alpha(wins(0.5, raters="a"), "preference") is None
    assert krippendorff_alpha([row(pair, r, 1.0) for pair in (0, 2) for r in "ab"], "preference") is None
    assert krippendorff_alpha([], "preference") is None


def test_alpha_is_the_textbooks() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A: ten units, nominal = ordinal for
    two values: alpha 0.095."""
    meg, owen = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    rows = [
        row(2 * pair, rater, float(value))
        for rater, answers in (("meg", meg), ("owen", owen))
        for pair, value in enumerate(answers)
    ]
    alpha = krippendorff_alpha(rows, "preference")
    assert alpha is not None
    assert alpha.mean == pytest.approx(0.095, abs=5e-4)


def test_strengths_order_three_models_and_name_no_model() -> None:
    random = np.random.default_rng(0)
    rows = []
    for pair in range(240):
        one, other, chance = (("new", "old", 0.75), ("old", None, 0.75), ("new", None, 0.9))[pair % 3]
        sides = {"first_model": one, "second_model": other, "first": f"{one}-{pair}", "second": f"{other}-{pair}"}
        rows.append(row(2 * pair, "a", float(random.random() < chance), **sides))
    strengths = fit_strengths(rows)
    assert sorted(strengths) == ["new", "no model", "old"]
    assert strengths["new"].low > strengths["old"].mean > strengths["no model"].high
    assert sum(one.mean for one in strengths.values()) == pytest.approx(0)
    # Three to one is log 3 between two models.
    assert strengths["new"].mean - strengths["old"].mean == pytest.approx(np.log(3), abs=0.5)


def test_a_model_that_never_lost_has_a_finite_strength() -> None:
    strengths = fit_strengths(wins(1.0, 10))
    assert np.isfinite([strengths["new"].mean, strengths["new"].high]).all()
    assert fit_strengths([]) == {}


def test_consistency() -> None:
    again = [row(0, "a", 1.0), row(0, "a", 1.0, item_id="x"), row(2, "a", 1.0), row(2, "a", 0.0, item_id="y")]
    assert compute_consistency(again) == 0.5
    assert compute_consistency(wins(0.5)) is None
