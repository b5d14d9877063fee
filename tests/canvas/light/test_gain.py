from __future__ import annotations

import numpy as np
import pytest

from canvas.light import gain
from canvas.light.gain import GRID, apply_gain, interpolate_grid, linear_to_srgb, srgb_to_linear
from tests.canvas.light.subject import build_background, build_slope

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_a_gain_of_one_changes_no_level():
    pixels = np.stack([LEVELS, LEVELS[::-1], LEVELS.T], -1)
    everything = np.ones((16, 16), bool)
    assert np.array_equal(apply_gain(pixels, np.zeros((GRID, GRID, 3)), (0, 0, 16, 16), everything), pixels)


def test_light_is_multiplied_in_linear_rgb_channel_by_channel():
    pixels = np.full((9, 9, 3), 100, np.uint8)
    made = apply_gain(pixels, np.full((GRID, GRID, 3), np.log([1.2, 1.0, 0.8])), (0, 0, 9, 9), np.ones((9, 9), bool))
    light = srgb_to_linear(np.float32([100 / 255])) * np.array([1.2, 1.0, 0.8])
    assert made.reshape(-1, 3).tolist() == [np.rint(255 * linear_to_srgb(light)).tolist()] * 81


def test_nodes_lie_in_the_corners_of_the_box_and_the_border_goes_on_beyond_it():
    along = interpolate_grid(build_slope(-0.2, 0.2), (10, 5, 80, 45), (0, 0, 100, 50))[20, :, 0]
    assert along[:10] == pytest.approx(-0.2)
    assert along[80:] == pytest.approx(0.2)
    assert np.diff(along[11:79]) == pytest.approx(0.4 / 70, abs=1e-6)
    assert along[44:46].mean() == pytest.approx(0, abs=1e-6)


def test_what_is_no_product_stays_and_strips_change_nothing(monkeypatch: pytest.MonkeyPatch):
    pixels, inside = build_background((40, 30)), np.zeros((30, 40), bool)
    inside[4:20, 8:30] = True
    whole = apply_gain(pixels, build_slope(-0.1, 0.2), (8, 4, 30, 20), inside)
    monkeypatch.setattr("canvas.pins.images.STRIP_PIXELS", 50)
    assert len(gain.iterate_windows(inside)) == 8
    assert np.array_equal(apply_gain(pixels, build_slope(-0.1, 0.2), (8, 4, 30, 20), inside), whole)
    changed = (whole != pixels).any(-1)
    assert changed.any()
    assert not changed[~inside].any()
