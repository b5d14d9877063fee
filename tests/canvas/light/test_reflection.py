from __future__ import annotations

import numpy as np
import pytest

from canvas.light.reflection import BASE_SHARE, BASE_SLOPE, REACH_SHARE, cast_reflection, find_base
from canvas.light.shadow.casting import ShadowMap, cast_shadows, measure_darkening
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha
from tests.canvas.light.shadow.test_casting import build_image, build_shadow_map

BASE = 60
"""First row below the product of `build_box`, which is 40 rows high."""


def build_box(shade: int = 200) -> tuple[Pixels, Pixels, Alpha]:
    """A black image of 100 x 80 pixels with a box of one shade on it, the product and its alpha."""
    product, alpha = np.zeros((100, 80, 3), np.uint8), np.zeros((100, 80), np.float32)
    product[20:BASE, 25:55], alpha[20:BASE, 25:55] = shade, 1
    return product.copy(), product, alpha


def test_it_lies_on_the_background_below_the_product_as_far_as_it_reaches():
    image, product, alpha = build_box()
    cast = cast_reflection(image, product, alpha, alpha, 0.5)
    changed = (cast != image).any(-1)
    end = BASE + round(REACH_SHARE * 40)
    assert not changed[:BASE].any()
    assert not changed[end:].any()
    assert changed[BASE : end - 2, 30:50].all()
    assert not changed[:, :20].any()
    assert not changed[:, 60:].any()
    assert cast_reflection(image, product, alpha, alpha, 0.0).tobytes() == image.tobytes()


def test_it_begins_at_the_product_with_its_strength_and_fades_without_a_line():
    image, product, alpha = build_box()
    for strength in (0.25, 1.0):
        column = cast_reflection(image, product, alpha, alpha, strength)[BASE:, 40, 0].astype(int)
        assert column[0] == pytest.approx(200 * strength, rel=0.08)
        steps = np.diff(column)
        assert (steps <= 0).all()
        assert steps.min() >= -200 * strength * 0.15
        assert column[-1] == 0


def test_it_is_the_product_upside_down_and_blurred_more_further_away():
    image, product, alpha = build_box()
    product[BASE - 1, 25:40] = 0  # the last row: half of it black
    product[BASE - 9, 25:40] = 0
    cast = cast_reflection(np.where(alpha[..., None] > 0, product, image), product, alpha, alpha, 1.0)
    assert cast[BASE, 30, 0] < 10 < 150 < cast[BASE, 50, 0]
    share = cast[BASE : BASE + 12, 30, 0] / np.maximum(1, cast[BASE : BASE + 12, 50, 0].astype(float))
    assert share[3] > 0.9
    assert 7 <= share[1:].argmin() + 1 <= 9
    assert share[8] > share[0] + 0.2


def test_a_round_base_is_touched_along_its_curve():
    image, product, alpha = build_image()
    cast = cast_reflection(image, product, alpha, alpha, 1.0)
    mask = alpha >= 0.5
    lowest = len(mask) - np.argmax(mask[::-1], axis=0)
    near = np.flatnonzero(mask.any(0) & (lowest > lowest[mask.any(0)].max() - 3))
    assert len(set(lowest[near])) == 3
    assert (cast != image).any(-1)[lowest[near], near].all()


def test_the_base_follows_curves_and_no_walls():
    rows, columns = np.mgrid[:50, :41]
    bowl = rows < 50 - ((columns - 20) / 10) ** 2
    assert find_base(bowl)[20] == 50
    assert (np.abs(np.diff(find_base(bowl))) <= BASE_SLOPE).all()
    assert (find_base(bowl) >= [50 - np.argmax(column[::-1]) for column in bowl.T]).all()
    handle = (columns < 20) | (rows < 30)  # ends 20 rows above the floor
    base = find_base(handle)
    assert (base[:20] == 50).all()
    assert base[20] == 50 - BASE_SLOPE
    assert base.min() == 50 - BASE_SHARE * 50


def test_a_core_stays_and_the_band_keeps_its_share_of_product():
    image, product, alpha = build_image()
    cast = cast_reflection(image, product, alpha, alpha, 1.0)
    assert np.array_equal(cast[alpha == 1], image[alpha == 1])
    band = (alpha > 0) & (alpha < 1)
    least = np.floor(alpha[..., None] * product) - 1
    assert (cast[band] >= least[band]).all()


def test_no_other_product_reflects_it():
    image, product, own = build_box()
    alpha = own.copy()
    alpha[64:70, 30:40] = 1
    cast = cast_reflection(image, product, own, alpha, 1.0)
    assert not cast[64:70, 30:40].any()
    assert cast[64:70, 45:50].all()


def test_what_reaches_the_last_row_has_no_floor():
    image, product, alpha = build_box()
    image, product, alpha = image[:BASE], product[:BASE], alpha[:BASE]
    alpha[-5:, 25:30] = 0  # a corner is cut: background shows below
    assert np.array_equal(cast_reflection(image, product, alpha, alpha, 1.0), image)


@pytest.mark.parametrize("rows", [1, 7])
def test_strips_give_the_same(monkeypatch, rows: int):
    image, product, alpha = build_image()
    whole = cast_reflection(image, product, alpha, alpha, 0.7)
    monkeypatch.setattr("canvas.pins.images.STRIP_PIXELS", rows * 48)
    assert np.array_equal(cast_reflection(image, product, alpha, alpha, 0.7), whole)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strength", [0.02, 0.5, 1.0])
def test_it_covers_shadows_and_leaves_them_lawful(seed: int, strength: float):
    image, product, alpha = build_image(seed)
    shadow = build_shadow_map(seed)
    shaded = cast_shadows(image, [shadow], product, alpha)
    plain = cast_reflection(image, product, alpha, alpha, strength)
    cast = cast_reflection(image, product, alpha, alpha, strength, shaded)
    assert measure_darkening(cast, shadow, plain, alpha == 1) <= 1
    lost, whole = plain.astype(int) - cast, image.astype(int) - shaded
    assert (lost >= 0).all()
    assert (lost <= whole).all()
    assert lost.sum() < whole.sum()
    none = ShadowMap(np.zeros((8, 8), np.uint8), shadow.window)
    bright = cast_shadows(image, [none], product, alpha)
    assert np.array_equal(cast_reflection(image, product, alpha, alpha, strength, bright), plain)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float):
    image, product, alpha = build_box()
    with pytest.raises(ValueError, match=r"strength is .*: it must be from 0, no reflection, to 1, the whole of it"):
        cast_reflection(image, product, alpha, alpha, strength)
