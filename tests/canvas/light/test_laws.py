from __future__ import annotations

import numpy as np
import pytest

from canvas.light.gain import GRID, apply_gain
from canvas.light.laws import (
    DECIMALS,
    LIMITS,
    SENTENCES,
    Check,
    check_exact,
    check_grid,
    check_pixels,
    limit_clipping,
    make_lawful,
)
from canvas.light.shadow.laws import SHADOW_LIMITS
from canvas.pins.masks import compute_box
from tests.canvas.light.subject import build_background, build_product, build_slope

TINT = np.broadcast_to(np.array([0.1, 0.0, -0.06]), (GRID, GRID, 3))


@pytest.mark.parametrize(
    ("grid", "broken"),
    [
        (build_slope(0.0, 0.0) + 0.31, ["gain"]),
        (build_slope(0.0, 0.0) - 0.31, ["gain"]),
        (build_slope(-0.22, 0.22), ["gradient"]),
        (build_slope(-0.22, 0.22).transpose(1, 0, 2), ["gradient"]),
        (TINT, ["hue"]),
        (build_slope(-0.2, 0.2), []),
        (build_slope(0.0, 0.0) + np.nan, ["gain", "gradient", "hue"]),
    ],
)
def test_each_law_of_the_grid_is_broken_by_its_own_fault(grid: np.ndarray, broken: list[str]):
    assert [check.law for check in check_grid(grid) if not check.holds] == broken


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_any_grid_becomes_lawful_as_it_is_written(scale: float, seed: int):
    grid = make_lawful(np.random.default_rng(seed).normal(0, scale, (GRID, GRID, 3)).astype(np.float32))
    assert all(check.holds for check in check_grid(grid))
    assert np.array_equal(np.round(grid, DECIMALS), grid)


def test_a_lawful_grid_stays_as_it_is():
    for grid in (build_slope(-0.14, 0.14), TINT / 2, np.zeros((GRID, GRID, 3))):
        assert make_lawful(grid) == pytest.approx(grid, abs=10.0**-DECIMALS)


def test_a_white_product_is_not_driven_beyond_white():
    original = np.array(build_product(brightest=256).convert("RGB"))
    core = np.array(build_product().getchannel("A")) == 255
    box = compute_box(core)
    bright = make_lawful(build_slope(0.0, 0.28))
    clipped, _ = check_pixels(original, original, core, bright, box)
    assert not clipped.holds
    lowered = limit_clipping(bright, original, core, box)
    image = apply_gain(original, lowered, box, core)
    checks = [*check_grid(lowered), *check_pixels(image, original, core, lowered, box)]
    assert [check.describe() for check in checks if not check.holds] == []
    assert bright[0, -1, 0] - bright[0, 0, 0] == pytest.approx(lowered[0, -1, 0] - lowered[0, 0, 0], abs=1e-3)


def test_a_product_with_room_above_it_keeps_its_gain():
    original, core = np.full((30, 30, 3), 120, np.uint8), np.zeros((30, 30), bool)
    core[5:25, 5:25] = True
    grid = make_lawful(build_slope(0.0, 0.28))
    assert limit_clipping(grid, original, core, compute_box(core)) is grid


def test_the_residual_counts_levels_on_the_core_alone():
    original, core = build_background((20, 20)) // 2, np.zeros((20, 20), bool)
    core[3:17, 4:16] = True
    box, grid = compute_box(core), build_slope(-0.1, 0.1)
    image = apply_gain(original, grid, box, core)
    image[0, 0] = 255
    assert check_pixels(image, original, core, grid, box)[1] == Check("residual", 0, LIMITS["residual"])
    image[10, 10, 2] += 2
    residual = check_pixels(image, original, core, grid, box)[1]
    assert (residual.measured, residual.holds) == (2, False)
    assert check_exact(image, original, core).measured > 100
    assert check_exact(original, original, core).holds


def test_every_law_can_say_what_it_found():
    assert set(SENTENCES) == {*LIMITS, *SHADOW_LIMITS, "band", "mended", "exact"}
    for law in SENTENCES:
        assert "0.5" in Check(law, 0.5, 0.1).describe() or "50.00%" in Check(law, 0.5, 0.1).describe()
