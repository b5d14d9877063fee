from __future__ import annotations

import numpy as np
import pytest

from evaluation.calibration import expected_calibration_error, platt


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_the_error_is_the_distance_of_what_was_said_from_what_happened():
    assert expected_calibration_error([0.9] * 10, [1] * 9 + [0]) == pytest.approx(0, abs=1e-6)
    assert expected_calibration_error([0.9] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.4, abs=1e-6)
    assert expected_calibration_error([0.9] * 5 + [0.1] * 15, [0] * 5 + [1] * 15) == pytest.approx(0.9, abs=1e-6)


def test_platt_finds_what_made_the_outcomes():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    outcomes = rng.random(20_000) < sigmoid(0.4 * logits - 1)
    scale, offset = platt(logits, outcomes)
    assert scale == pytest.approx(0.4, abs=0.02)
    assert offset == pytest.approx(-1, abs=0.05)
    raw, calibrated = (
        expected_calibration_error(sigmoid(scale * logits + offset), outcomes)
        for scale, offset in ((1.0, 0.0), (scale, offset))
    )
    assert calibrated < 0.02 < raw


@pytest.mark.parametrize("outcomes", [[1, 1, 1], [0, 0, 0], [1, 0, 0]])
def test_platt_never_turns_ranks_round(outcomes):
    """All outcomes alike, or lower logits with the better outcomes: nothing to correct by."""
    assert platt([-1.0, 0.0, 1.0], outcomes) == (1.0, 0.0)


def test_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="there are none"):
        expected_calibration_error([], [])
