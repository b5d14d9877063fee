from __future__ import annotations

import numpy as np
import pytest
import torch

from canvas.light.gain import GRID
from canvas.light.training import LightBatch, LitPin, remove_gain
from evaluation.measures.light import compute_light_metrics, draw_light_sheet, score_light
from tests.canvas.light.subject import build_background, build_slope
from tests.canvas.light.test_model import build_moved


def make_batch(gains: list[np.ndarray]) -> LightBatch:
    """Pins p0, p1, ... of these true gains, with a product that fills its box."""
    generator = torch.Generator().manual_seed(0)
    return {
        "pin_id": [f"p{number}" for number in range(len(gains))],
        "layers": torch.randint(0, 256, (len(gains), 7, 16, 16), generator=generator, dtype=torch.uint8),
        "boxes": torch.tensor([[0.2, 0.2, 0.8, 0.8]]).repeat(len(gains), 1),
        "gains": torch.from_numpy(np.stack(gains)).float(),
        "weights": torch.full((len(gains), GRID, GRID, 1), 1 / GRID**2),
    }


def test_no_gain_is_as_far_off_as_the_true_gain_is_large():
    gains = [build_slope(0.1, 0.1), build_slope(-0.2, -0.2), build_slope(-0.14, 0.14)]
    scores = score_light(build_moved(0.0), make_batch(gains), np.full((GRID, GRID, 3), 0.1), 2)
    unlit = [score.unlit_error for score in scores]
    assert [score.error for score in scores] == pytest.approx(unlit)  # a new network says no gain
    assert [score.unlit_error for score in scores[:2]] == pytest.approx([0.1, 0.2], abs=1e-6)
    assert [score.constant_error for score in scores[:2]] == pytest.approx([0.0, 0.3], abs=1e-6)
    assert [score.lawful_error for score in scores] == pytest.approx([0.0, 0.0, 0.0], abs=1e-4)
    assert [score.slope for score in scores] == pytest.approx([0.0, 0.0, 0.28], abs=1e-6)


def test_figures_have_intervals_and_splits():
    gains = [build_slope(0.02 * number - 0.1, 0.01 * number) for number in range(8)]
    scores = score_light(build_moved(0.2), make_batch(gains), np.zeros((GRID, GRID, 3)), 3)
    split_of = {f"p{number}": "unseen_view" if number < 4 else "unseen_both" for number in range(8)}
    values = compute_light_metrics(scores, split_of)
    assert values["pins"] == 8
    assert values["error_low"] <= values["error"] <= values["error_high"]
    assert values["error_share"] == pytest.approx(values["error"] / values["unlit_error"])
    assert -1 <= values["slope_correlation"] <= 1
    assert values["unseen_view"]["pins"] == values["unseen_both"]["pins"] == 4


def test_the_sheet_shows_three_images_a_pin():
    pixels, alpha = build_background((40, 30)), np.zeros((30, 40), np.float32)
    alpha[5:25, 10:30] = 1
    grid, box = build_slope(-0.1, 0.1), (10, 5, 30, 25)
    pin = LitPin("a", pixels, remove_gain(pixels, grid, box, alpha), alpha, box, grid)
    assert draw_light_sheet(build_moved(), [pin, pin]).size == (3 * 166 + 6, 2 * 182 + 6)
