from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.light.shadow.casting import MAX_OPACITY
from canvas.light.shadow.model import (
    ShadowModel,
    build_map,
    build_shadow,
    choose_window,
    load_shadow,
    predict_shadow,
)
from canvas.light.shadow.spec import ShadowSpec, check_strength
from tests.canvas.light.subject import build_background, build_product

TINY = ShadowSpec(image_size=16, channels=(8, 8, 8, 8))


def build_moved(scale: float = 1.0) -> ShadowModel:
    """A network that has learnt something: its last layer is random."""
    torch.manual_seed(0)
    model = build_shadow(TINY)
    torch.nn.init.normal_(model.head.weight, std=scale)
    torch.nn.init.zeros_(model.head.bias)
    return model.eval()


def build_broken() -> ShadowModel:
    """A network whose last layer is damaged."""
    model = build_moved()
    torch.nn.init.constant_(model.head.bias, float("nan"))
    return model


def test_a_new_network_casts_next_to_nothing_and_any_stays_in_bounds():
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.0, 0.0, 1.0, 1.0]])
    torch.manual_seed(0)
    made = build_shadow(TINY)(torch.rand(2, 7, 16, 16), boxes)
    assert made.shape == (2, 16, 16)
    assert 0 < made.max() < 0.02
    wild = build_moved(100.0)(torch.rand(2, 7, 16, 16), boxes)
    assert 0 <= wild.min() < 0.1
    assert 0.6 < wild.max() <= MAX_OPACITY


def test_it_sees_scene_product_and_place(tmp_path: Path):
    model, product = build_moved(), build_product()
    pixels, alpha = np.array(product.convert("RGB")), np.asarray(product.getchannel("A"), np.float32) / 255
    scene = build_background(product.size)
    made = predict_shadow(model, pixels, alpha, scene)
    assert made.levels.shape == (16, 16)
    assert np.ptp(made.levels) > 5
    hidden = np.where(alpha[..., None] == 1, 0, scene).astype(np.uint8)  # what lies behind the product does not matter
    assert np.array_equal(predict_shadow(model, pixels, alpha, hidden).levels, made.levels)
    for changed in ((pixels, alpha, scene // 2), (pixels // 2, alpha, scene), (pixels, np.roll(alpha, 5, 0), scene)):
        assert not np.array_equal(predict_shadow(model, *changed).levels, made.levels)
    model.save_pretrained(tmp_path)
    assert np.array_equal(predict_shadow(load_shadow(tmp_path), pixels, alpha, scene).levels, made.levels)


def test_a_small_product_has_the_window_that_its_surroundings_would_be_alone():
    """The shadow of a product is the same on a large canvas as in its own image."""
    model, product = build_moved(), build_product(80, 64)
    pixels, alpha = np.array(product.convert("RGB")), np.asarray(product.getchannel("A"), np.float32) / 255
    large_pixels, large_alpha = np.zeros((400, 500, 3), np.uint8), np.zeros((400, 500), np.float32)
    large_pixels[200:280, 100:164], large_alpha[200:280, 100:164] = pixels, alpha
    scene = build_background((500, 400))
    shadow = predict_shadow(model, large_pixels, large_alpha, scene)
    left, top, right, bottom = shadow.window
    assert 150 > right - left == bottom - top > 80
    cropped = predict_shadow(
        model,
        large_pixels[top:bottom, left:right],
        large_alpha[top:bottom, left:right],
        scene[top:bottom, left:right],
    )
    assert cropped.window == (0, 0, right - left, bottom - top)
    assert np.array_equal(cropped.levels[4:12, 4:12], shadow.levels[4:12, 4:12])
    assert shadow.levels[0].max() < cropped.levels[0].max()  # it fades where the image goes on


@pytest.mark.parametrize(
    ("box", "size", "window"),
    [
        ((40, 20, 80, 100), (400, 300), (0, 0, 160, 160)),  # as the left border has it
        ((200, 100, 240, 180), (400, 300), (140, 52, 300, 212)),
        ((200, 200, 240, 290), (400, 300), (130, 120, 310, 300)),  # the ground ends
        ((0, 0, 400, 300), (400, 300), (0, 0, 400, 300)),
        ((10, 10, 12, 290), (60, 300), (0, 0, 60, 300)),
        ((5, 5, 6, 6), (7, 7), (4, 4, 6, 6)),
    ],
)
def test_a_window_holds_the_product_and_lies_within_the_image(box, size, window):
    made = choose_window(box, *size)
    assert made == window
    assert made[0] <= box[0] < box[2] <= made[2] or size[0] < box[2] - box[0]


def test_a_map_fades_at_sides_that_lie_within_the_image():
    full = np.full((16, 16), MAX_OPACITY, np.float32)
    whole = build_map(full, (0, 0, 50, 50), 50, 50)
    assert np.unique(whole.levels).tolist() == [178]
    inner = build_map(full, (10, 0, 40, 50), 60, 50).levels
    assert inner[8, 8] == 178
    assert inner[8, 0] < inner[8, 1] < inner[8, 4]
    assert inner[8, -1] < 40
    assert inner[0, 8] == 178


def test_broken_weights_and_folders_without_a_network_are_refused(tmp_path: Path):
    model, product = build_broken(), build_product()
    pixels, alpha = np.array(product.convert("RGB")), np.asarray(product.getchannel("A"), np.float32) / 255
    with pytest.raises(ValueError, match="the shadow network gave NaN or infinity"):
        predict_shadow(model, pixels, alpha, pixels)
    with pytest.raises(ValueError, match="name a directory that the train_light stage wrote"):
        load_shadow(tmp_path)


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_of_0_to_1_is_refused(strength: float):
    with pytest.raises(ValueError, match=r"--shadow is .*: it must be from 0, no shadow, to 1, the whole of it"):
        check_strength("--shadow", strength)
    check_strength("--shadow", 0)
    check_strength("--shadow", 1)
