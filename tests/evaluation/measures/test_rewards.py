from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.measures.rewards import (
    ScoredComparisons,
    compute_accuracies,
    compute_accuracy,
    compute_alone_accuracies,
    compute_background_metrics,
    compute_calibration_errors,
    fit_calibrations,
)

NAN = np.nan
QUESTIONS = ("defects", "fidelity")


def judged() -> ScoredComparisons:
    """Pin a: right, wrong; pin b: right; then a tie and an unasked one."""
    return ScoredComparisons(
        pins=["a", "a", "b", "b", "c"],
        kinds=[frozenset({kind}) for kind in ("seam", "cut", "seam", "cut", "cut")],
        first=np.array([[2.0, 0], [2, 0], [-1, 0], [5, 0], [5, 0]]),
        second=np.zeros((5, 2)),
        preferred=np.array([[1, NAN], [0, NAN], [0, NAN], [0.5, NAN], [NAN, NAN]]),
        first_good=np.array([[1, NAN], [0, NAN], [0, NAN], [NAN, NAN], [NAN, NAN]]),
        second_good=np.array([[0, NAN], [1, NAN], [1, NAN], [NAN, NAN], [NAN, NAN]]),
    )


def test_accuracy_is_the_mean_over_pins_without_ties():
    accuracy = compute_accuracy(judged(), 0)
    assert accuracy is not None
    assert accuracy.mean == pytest.approx((0.5 + 1) / 2)
    assert accuracy.low < accuracy.mean < accuracy.high or (accuracy.low, accuracy.high) == (0.5, 1.0)
    assert compute_accuracy(judged(), 1) is None


def test_figures_hold_only_what_was_asked():
    metrics = compute_accuracies(judged(), QUESTIONS)
    assert sorted(metrics) == ["defects_accuracy", "defects_accuracy_high", "defects_accuracy_low", "defects_pairs"]
    assert metrics["defects_pairs"] == 4


def test_comparisons_of_one_kind():
    seams = judged().select_kind("seam")
    assert list(seams.pins) == ["a", "b"]
    accuracy = compute_accuracy(seams, 0)
    assert accuracy is not None
    assert accuracy.mean == 1.0
    assert compute_accuracy(judged().select_kind("blurred"), 0) is None


def test_calibration_lowers_the_error_of_a_model_that_is_too_sure():
    rng = np.random.default_rng(0)
    good = rng.random((2000, 2)) < 0.5
    logits = np.where(good, 6.0, -6.0) * np.where(rng.random((2000, 2)) < 0.75, 1, -1)
    rows = ScoredComparisons(
        [str(row) for row in range(2000)], [frozenset()] * 2000, logits, logits, good, good.astype(float), good
    )
    curves = fit_calibrations(rows, QUESTIONS)
    chances = np.stack([np.interp(logits[:, place], *curves[name]) for place, name in enumerate(QUESTIONS)], axis=1)
    errors = compute_calibration_errors(rows, (chances, chances), QUESTIONS)
    for question in QUESTIONS:
        assert errors[f"{question}_ece"] < 0.02 < 0.2 < errors[f"{question}_ece_raw"]


def test_a_background_is_told_by_the_prompts_part_of_the_logit():
    """Whatever the overall score says: the last column is it plus the agreement of image and prompt."""
    overall = np.array([5.0, -5, 0, 0])
    agreement = np.array([1.0, 1, -1, -1])  # of the first image; the second's is 0
    first = np.stack([*np.zeros((3, 4)), overall, overall + agreement], axis=1)
    preferred = np.full((4, 5), NAN)
    preferred[:, 4] = [1, 0, 0, 0]
    unknown = np.full((4, 5), NAN)
    scored = ScoredComparisons(
        ["a", "a", "b", "b"], [frozenset({"scene"})] * 4, first, np.zeros((4, 5)), preferred, unknown, unknown
    )
    prompts = ["in a forest", "in a forest", "in a lobby", "on the moon"]
    metrics = compute_background_metrics(scored, prompts, ["on the moon"])
    assert metrics["known"]["accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert (metrics["known"]["pairs"], metrics["unseen"]["pairs"]) == (3, 1)
    assert metrics["unseen"]["accuracy"] == 1.0
    assert compute_background_metrics(scored, prompts, []).keys() == {"known"}


def test_images_that_people_judged_alone_are_scored_in_twos() -> None:
    scored = judged()
    assert compute_alone_accuracies(scored, QUESTIONS) == {"defects_alone_accuracy": 0.75, "defects_alone": 3}
    same = replace(scored, first_good=np.ones((5, 2)))
    assert compute_alone_accuracies(same, QUESTIONS) == {}
