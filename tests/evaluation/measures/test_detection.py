from __future__ import annotations

import math

import pytest

from evaluation.measures.detection import compute_good_pass_rate, score_detections

PLANTED = ["blurred", "blurred", "blurred", "tiny", None, None, None, None]
REASONS = ["blurred", "tiny", None, "tiny", "blurred", None, None, None]


def test_rates_are_those_of_the_definition() -> None:
    blurred, tiny = score_detections(PLANTED, REASONS, ["blurred", "tiny"])
    assert (blurred.planted, blurred.detected, tiny.planted, tiny.detected) == (3, 2, 1, 2)
    assert (blurred.precision, blurred.recall, blurred.dropped) == pytest.approx((1 / 2, 1 / 3, 2 / 3))
    assert (tiny.precision, tiny.recall, tiny.dropped) == (1 / 2, 1, 1)


def test_what_nobody_planted_or_found_has_no_rate() -> None:
    (missed,) = score_detections(["odd", None], [None, None], ["odd"])
    assert math.isnan(missed.precision)
    assert (missed.recall, missed.dropped) == (0, 0)
    (absent,) = score_detections([None, None], ["odd", None], ["odd"])
    assert absent.precision == 0
    assert math.isnan(absent.recall)
    assert math.isnan(absent.dropped)


def test_good_pins_that_pass() -> None:
    assert compute_good_pass_rate(PLANTED, REASONS) == 0.75
    assert math.isnan(compute_good_pass_rate(["tiny"], [None]))
