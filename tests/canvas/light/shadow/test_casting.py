from __future__ import annotations

import numpy as np
import pytest

from canvas.light.shadow.casting import (
    MAX_OPACITY,
    ShadowMap,
    cast_shadows,
    compute_remainder,
    measure_darkening,
    remove_shadow,
)
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha
from tests.canvas.light.subject import build_background, build_product


def build_image(seed: int = 0) -> tuple[Pixels, Pixels, Alpha]:
    """An image of 60 x 48 pixels with a product that has a soft edge, the product and its alpha."""
    cutout = build_product()
    product, alpha = np.array(cutout.convert("RGB")), np.asarray(cutout.getchannel("A"), np.float32) / 255
    weight = alpha[..., None]
    image = np.rint(weight * product + (1 - weight) * build_background((48, 60), seed)).astype(np.uint8)
    return image, product, alpha


def build_shadow_map(seed: int = 0, window: tuple[int, int, int, int] = (4, 10, 44, 58)) -> ShadowMap:
    """A random map of 8 x 8 nodes, from no shadow to the darkest that is allowed."""
    levels = np.random.default_rng(seed).integers(0, 1 + int(MAX_OPACITY * 255), (8, 8))
    return ShadowMap(levels.astype(np.uint8), window)


def test_no_pixel_is_darker_than_the_nodes_around_it_and_beyond_the_window_there_is_none():
    shadow = build_shadow_map()
    opacity = shadow.interpolate(range(60), range(48))
    assert opacity.shape == (60, 48)
    inside = np.zeros((60, 48), bool)
    inside[10:58, 4:44] = True
    assert not opacity[~inside].any()
    assert opacity.max() <= shadow.levels.max() / 255
    assert opacity[inside].min() >= shadow.levels.min() / 255
    part = shadow.interpolate(range(20, 30), range(7, 40))
    assert part == pytest.approx(opacity[20:30, 7:40], abs=1e-12)
    flat = ShadowMap(np.full((8, 8), 51, np.uint8), (4, 10, 44, 58))
    assert flat.interpolate(range(60), range(48))[inside] == pytest.approx(0.2)


def test_nodes_are_the_middles_of_the_cells_of_the_window():
    levels = np.zeros((4, 4), np.uint8)
    levels[1, 2] = 100
    opacity = ShadowMap(levels, (0, 0, 36, 12)).interpolate(range(12), range(36))
    assert np.unravel_index(opacity.argmax(), opacity.shape) == (4, 22)
    assert opacity.max() == pytest.approx(100 / 255)
    assert opacity[4, 13] == pytest.approx(0)


def test_a_shadow_lies_on_the_background_and_never_on_the_core():
    image, product, alpha = build_image()
    shadow = build_shadow_map()
    cast = cast_shadows(image, [shadow], product, alpha)
    opacity = shadow.interpolate(range(60), range(48))[..., None]
    assert np.array_equal(cast[alpha == 1], image[alpha == 1])
    clear = alpha == 0
    assert np.abs(cast - image * (1 - opacity))[clear].max() <= 0.5 + 1e-9
    assert (cast <= image).all()
    assert (cast >= np.floor(image * (1 - MAX_OPACITY))).all()
    assert cast_shadows(image, [], product, alpha).tobytes() == image.tobytes()


def test_the_band_keeps_its_share_of_product():
    """A black background has nothing to darken, however much product lies over it."""
    _, product, alpha = build_image()
    over_black = np.rint(alpha[..., None] * product).astype(np.uint8)
    cast = cast_shadows(over_black, [build_shadow_map()], product, alpha)
    assert np.abs(cast.astype(int) - over_black).max() <= 1


def test_where_shadows_meet_they_multiply_up_to_the_darkest():
    white, nothing = np.full((20, 20, 3), 250, np.uint8), np.zeros((20, 20), np.float32)
    half = ShadowMap(np.full((2, 2), 102, np.uint8), (0, 0, 20, 20))  # 0.4
    assert np.unique(cast_shadows(white, [half], white, nothing)).tolist() == [150]
    assert np.unique(cast_shadows(white, [half, half], white, nothing)).tolist() == [90]
    assert np.unique(cast_shadows(white, [half] * 9, white, nothing)).tolist() == [75]  # 0.3 of it stays
    corner = ShadowMap(half.levels, (10, 10, 20, 20))
    made = cast_shadows(white, [half, corner], white, nothing)
    assert (made[5, 5, 0], made[15, 15, 0]) == (150, 90)


def test_a_weaker_shadow_is_the_same_map_with_less_of_it():
    shadow = build_shadow_map()
    assert not shadow.scale(0).levels.any()
    assert np.array_equal(shadow.scale(1).levels, shadow.levels)
    assert np.abs(shadow.scale(0.5).levels - shadow.levels / 2).max() <= 0.5


@pytest.mark.parametrize("seed", range(4))
def test_what_was_before_the_shadow_comes_back_byte_for_byte(seed: int, monkeypatch: pytest.MonkeyPatch):
    image, product, alpha = build_image(seed)
    shadow, core = build_shadow_map(seed), alpha == 1
    cast = cast_shadows(image, [shadow], product, alpha)
    remainder = compute_remainder(cast, shadow, image, core)
    assert np.array_equal(remove_shadow(cast, shadow, remainder, core), image)
    monkeypatch.setattr("canvas.pins.images.STRIP_PIXELS", 100)  # strips change nothing
    assert np.array_equal(cast_shadows(image, [shadow], product, alpha), cast)
    assert np.array_equal(remove_shadow(cast, shadow, remainder, core), image)
    assert not remainder[core[10:58, 4:44]].any()


def test_darkening_beyond_the_map_and_light_on_the_core_are_measured():
    image, product, alpha = build_image()
    shadow, core = build_shadow_map(), alpha == 1
    cast = cast_shadows(image, [shadow], product, alpha)
    assert measure_darkening(cast, shadow, image, core) <= 0.5 + 1e-9
    darker, brighter, touched = cast.copy(), cast.copy(), cast.copy()
    row, column = np.argwhere((alpha == 0)[12:56, 6:42] & (cast[12:56, 6:42].min(-1) > 30))[0] + (12, 6)
    darker[row, column] -= 20
    assert measure_darkening(darker, shadow, image, core) >= 19
    row, column = np.argwhere((alpha == 0)[12:56, 6:42] & (image[12:56, 6:42].max(-1) < 230))[0] + (12, 6)
    brighter[row, column] = image[row, column] + 20
    assert measure_darkening(brighter, shadow, image, core) >= 19
    touched[30, 24] = image[30, 24] ^ 8
    assert core[30, 24]
    assert measure_darkening(touched, shadow, image, core) == 8
