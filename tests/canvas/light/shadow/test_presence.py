from __future__ import annotations

import numpy as np
import pytest

from canvas.light.shadow.presence import measure_presence

HEIGHT = 24.0
OPACITY = 0.5 * np.exp(-(((np.mgrid[:48, :48][1] - 24) / 12) ** 2) - ((np.mgrid[:48, :48][0] - 38) / 3) ** 2)


def build_layers(share: float, seed: int = 0) -> np.ndarray:
    """Layers of a product before a bright, textured floor that shows `share` of the shadow OPACITY."""
    random = np.random.default_rng(seed)
    alpha = np.zeros((48, 48))
    alpha[12:36, 16:32] = 1
    floor = np.clip(random.normal(150, 15, (3, 48, 48)) + np.linspace(-40, 40, 48)[:, None], 0, 255)
    scene = floor * (1 - OPACITY) ** share * (1 - alpha)
    return np.concatenate([100 * alpha[None].repeat(3, 0), 255 * alpha[None], scene]).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_the_share_that_is_there_is_found_under_the_textures_of_a_scene(seed: int):
    opacity = OPACITY.astype(np.float32)
    none, half, whole = (measure_presence(build_layers(share, seed), opacity, HEIGHT) for share in (0, 0.5, 1))
    assert none < 0.1
    assert 0.15 < half < 0.85
    assert whole > 0.9
    assert measure_presence(build_layers(1, seed), 0.6 * opacity, HEIGHT) > 0.9  # one that is darker than predicted


def test_what_says_nothing_is_no_shadow():
    layers, opacity = build_layers(1), OPACITY.astype(np.float32)
    assert measure_presence(layers, 0 * opacity, HEIGHT) == 0
    assert measure_presence(layers, 0 * opacity + 0.4, HEIGHT) < 0.1  # even everywhere
    black = layers.copy()
    black[4:] = 0
    assert measure_presence(black, opacity, HEIGHT) < 0.1
    covered = layers.copy()
    covered[3] = 255
    assert measure_presence(covered, opacity, HEIGHT) == 0
