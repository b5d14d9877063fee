from __future__ import annotations

import numpy as np
import pytest

from canvas.light.shadow.training import ShadowedPin
from evaluation.measures.shadow import (
    DropShadow,
    compute_balanced_error,
    compute_shadow_metrics,
    draw_shadow_sheet,
    fit_drop_shadow,
    score_shadow,
    shade_background,
)
from tests.canvas.light.shadow.test_model import build_moved

BOX = (14, 10, 34, 40)
DROP = DropShadow(0.05, 0.02, 0.05, 0.4)


def build_pin(pin_id: str, shadow: DropShadow, seed: int = 0) -> ShadowedPin:
    """A pin of 48 x 56 pixels with a box for a product, whose true shadow is a drop shadow."""
    random = np.random.default_rng(seed)
    background, product = random.integers(90, 250, (2, 56, 48, 3), dtype=np.uint8)
    alpha = np.zeros((56, 48), np.float32)
    alpha[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    opacity = shadow.draw(alpha, BOX)
    return ShadowedPin(pin_id, product, alpha, BOX, background, opacity)


def test_the_drop_shadow_that_pins_have_is_found_with_its_opacity():
    pins = [build_pin(str(seed), DROP, seed) for seed in range(3)]
    fitted = fit_drop_shadow(pins)
    assert (fitted.right, fitted.down, fitted.blur) == (DROP.right, DROP.down, DROP.blur)
    assert fitted.opacity == pytest.approx(0.4, abs=1e-3)


def test_errors_of_known_guesses():
    pin = build_pin("a", DROP)
    score = score_shadow(build_moved(), pin, DROP, "mug")
    assert score.drop_error == pytest.approx(0, abs=1e-6)
    assert score.drop_rate == 0
    shows = pin.alpha == 0
    assert score.none_error == pytest.approx(np.sqrt((pin.opacity[shows] ** 2).mean()), rel=1e-5)
    assert score.none_rate == 0.5
    assert 0 < score.map_error < 0.3 * score.none_error
    assert score.error > score.map_error
    assert np.abs(shade_background(pin) - pin.background * (1 - pin.opacity[..., None])).max() <= 0.5


def test_the_balanced_error_weighs_both_kinds_of_pixels_alike():
    true, shows = np.zeros((10, 10), np.float32), np.ones((10, 10), np.float32)
    true[:2] = 0.5
    assert compute_balanced_error(true, true, shows) == 0
    assert compute_balanced_error(np.zeros_like(true), true, shows) == 0.5
    assert compute_balanced_error(np.ones_like(true), true, shows) == 0.5
    guess = true.copy()
    guess[1] = 0  # half of the shadow is missed
    guess[9, :8] = 0.3  # a tenth of the light is taken for shadow
    assert compute_balanced_error(guess, true, shows) == pytest.approx((0.5 + 0.1) / 2)
    assert compute_balanced_error(guess, true, np.where(np.arange(10)[:, None] == 1, 0, shows)) == pytest.approx(0.05)


def test_figures_have_intervals_by_product_and_splits():
    scores = [
        score_shadow(
            build_moved(), build_pin(f"p{number}", DropShadow(0.02, 0.05, 0.1, 0.3 + 0.1 * number)), DROP, name
        )
        for number, name in enumerate(["mug", "mug", "shoe", "shoe"])
    ]
    split_of = {"p0": "unseen_view", "p1": "unseen_view", "p2": "unseen_both", "p3": "unseen_both"}
    values = compute_shadow_metrics(scores, split_of)
    assert (values["pins"], values["products"]) == (4, 2)
    for name in ("error", "none_error", "drop_rate", "again", "error_share_of_none", "rate_share_of_drop"):
        assert values[f"{name}_low"] <= values[name] <= values[f"{name}_high"]
    assert values["error_share_of_none"] == pytest.approx(values["error"] / values["none_error"])
    assert values["unseen_view"]["none_error"] < values["none_error"] < values["unseen_both"]["none_error"]
    assert values["unseen_view"]["none_error_low"] == values["unseen_view"]["none_error_high"]  # of one product


def test_the_sheet_shows_four_images_a_pin():
    pin = build_pin("a", DROP)
    assert draw_shadow_sheet(build_moved(), [pin, pin], DROP).size == (4 * 166 + 6, 2 * 182 + 6)
