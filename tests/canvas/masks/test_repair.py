"""A mask's edge mended from the photograph, and the colours of its band without the old background."""

from __future__ import annotations

import numpy as np
import pytest

from canvas.light.band import compute_reach
from canvas.masks import repair
from canvas.masks.foreground import estimate_foreground, spread_colours
from canvas.masks.repair import clean_colours, find_uncertain, mend_matte
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Mask

SIDE, RADIUS, WHITE, DARK = 120, 36.0, 250.0, 20.0


def draw_disc(side: int = SIDE, radius: float = RADIUS) -> tuple[Pixels, Alpha, np.ndarray]:
    """A photograph of a patterned disc on white, its true alpha and true colours."""
    rows, columns = np.mgrid[:side, :side]
    alpha = np.clip(radius - measure_radius(side) + 0.5, 0, 1).astype(np.float32)
    colours = np.stack([60 + 20 * np.sin(columns / 7), 0 * rows + 40, 90 + 20 * np.cos(rows / 9)], -1)
    photograph = alpha[..., None] * colours + (1 - alpha[..., None]) * WHITE
    return np.rint(photograph).astype(np.uint8), alpha, colours


def measure_radius(side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.hypot(rows - side / 2, columns - side / 2))


def mend(pixels: Pixels, mask: Mask, mattes: list[Alpha]) -> Alpha:
    mended = mend_matte(pixels, mask, mattes)
    assert mended is not None
    return mended


def measure_fringe(pixels: Pixels, alpha: Alpha, true_alpha: Alpha, colours: np.ndarray) -> float:
    """Sum of the errors of the product on a dark background, in levels a pixel of the edge's length."""
    made = alpha[..., None] * pixels + (1 - alpha[..., None]) * DARK
    true = true_alpha[..., None] * colours + (1 - true_alpha[..., None]) * DARK
    return float(np.abs(made - true).mean(-1).sum() / (2 * np.pi * RADIUS))


@pytest.mark.parametrize("off", [0.0, -2.0, 2.0])
def test_what_was_cut_off_comes_back_and_what_was_left_over_goes(off: float):
    """A mask that is two pixels off, beside a matte that sees the edge."""
    pixels, alpha, colours = draw_disc()
    mask = measure_radius() < RADIUS + off
    mended = mend(pixels, mask, [alpha])
    assert np.abs(mended - alpha).max() < 0.2
    before = measure_fringe(pixels, mask.astype(np.float32), alpha, colours)
    assert measure_fringe(clean_colours(pixels, mended), mended, alpha, colours) < before / 3


def test_nothing_changes_beyond_reach_or_where_the_matte_is_sure():
    pixels, alpha, _ = draw_disc()
    shifted = measure_radius() < RADIUS - 9  # further off than anything is mended
    mended = mend(pixels, shifted, [alpha])
    changed = mended != shifted
    assert changed.any()
    assert (abs(measure_radius() - (RADIUS - 9))[changed] <= compute_reach((SIDE, SIDE)) + 1).all()
    cleaned = clean_colours(pixels, mended)
    assert np.array_equal(cleaned[mended == 1], pixels[mended == 1])
    assert np.array_equal(cleaned[mended == 0], pixels[mended == 0])
    rim, doubtful = find_uncertain(shifted, [shifted.astype(np.float32)])
    assert rim.any()
    assert not doubtful.any()
    assert find_uncertain(shifted, [alpha])[1].any()


def test_a_product_of_its_backgrounds_colour_keeps_its_mask():
    """White on white: the photograph tells nothing, so what was believed before stays."""
    mask = measure_radius() < RADIUS
    mended = mend(np.full((SIDE, SIDE, 3), 250, np.uint8), mask, [])
    assert np.array_equal(mended >= 0.5, mask)
    assert np.abs(mended - mask)[abs(measure_radius() - RADIUS) > 2].max() == 0


def test_a_mask_that_is_all_rim_is_not_mended():
    mask = np.zeros((60, 60), bool)
    mask[30] = True
    assert mend_matte(np.zeros((60, 60, 3), np.uint8), mask, []) is None


def test_a_speck_beside_the_product_goes():
    pixels, alpha, _ = draw_disc()
    mask = measure_radius() < RADIUS
    mask[4:6, 4:6] = True
    assert not mend(pixels, mask, [alpha])[:12, :12].any()


def test_tiles_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch):
    pixels, alpha, _ = draw_disc()
    mask = measure_radius() < RADIUS + 2
    whole = mend(pixels, mask, [alpha])
    colours = clean_colours(pixels, alpha)
    monkeypatch.setattr(repair, "TILE", 32)
    assert np.abs(mend(pixels, mask, [alpha]) - whole).max() < 0.05
    difference = np.abs(clean_colours(pixels, alpha).astype(int) - colours)
    assert (alpha[..., None] * difference).max() <= 8  # what is hardly product has hardly a colour


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (40, 61)])
def test_colours_are_estimated_for_any_size(size: tuple[int, int]):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*size, 3)).astype(np.float32)
    alpha = random.uniform(size=size).astype(np.float32)
    alpha[0, 0] = 1
    made = estimate_foreground(pixels, alpha)
    assert made.shape == pixels.shape
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    assert (made <= 255).all()
    assert np.array_equal(made[0, 0], pixels[0, 0])
    known = alpha > 0.9
    spread = spread_colours(pixels, known)
    assert np.array_equal(spread[known], pixels[known])
    assert spread.max() <= pixels[known].max() + 0.1
    assert spread.min() >= pixels[known].min() - 0.1


def test_the_products_colour_is_told_from_the_backgrounds():
    """At its edge the photograph is 90 levels off the product's colour, the estimate is a few."""
    pixels, alpha, colours = draw_disc()
    band = (alpha > 0.1) & (alpha < 1)
    made = estimate_foreground(pixels.astype(np.float32), alpha)
    assert np.abs(pixels - colours)[band].mean() > 60
    assert np.abs(made - colours)[band].mean() < 6
