from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics.calibration import expected_calibration_error, fit_isotonic


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_the_error_is_the_distance_of_what_was_said_from_what_happened():
    assert expected_calibration_error([0.9] * 10, [1] * 9 + [0]) == pytest.approx(0, abs=1e-6)
    assert expected_calibration_error([0.9] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.4, abs=1e-6)
    assert expected_calibration_error([0.9] * 5 + [0.1] * 15, [0] * 5 + [1] * 15) == pytest.approx(0.9, abs=1e-6)


def test_the_chances_that_made_the_outcomes_are_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    outcomes = rng.random(20_000) < sigmoid(0.4 * logits - 1)
    knots, levels = fit_isotonic(logits[:10_000], outcomes[:10_000])
    assert (np.diff(knots) >= 0).all()
    assert (np.diff(levels) >= 0).all()
    assert 0 < levels[0] < levels[-1] < 1
    raw, calibrated = (
        expected_calibration_error(chances, outcomes[10_000:])
        for chances in (sigmoid(logits[10_000:]), np.interp(logits[10_000:], knots, levels))
    )
    assert calibrated < 0.02 < 0.1 < raw


@pytest.mark.parametrize("outcomes", [[1, 1, 1], [0, 0, 0], [1, 0, 0]])
def test_ranks_are_never_turned_round(outcomes):
    """All outcomes alike, or lower logits with the better outcomes: one level."""
    _, levels = fit_isotonic([-1.0, 0.0, 1.0], outcomes)
    assert np.ptp(levels) == pytest.approx(0)
    assert 0 < levels[0] < 1


def test_without_outcomes_it_is_the_sigmoid():
    knots, levels = fit_isotonic([], [])
    assert np.allclose(levels, sigmoid(knots))


def test_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="there are none"):
        expected_calibration_error([], [])
