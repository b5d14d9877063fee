from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.light.gain import GRID
from canvas.light.laws import check_grid, make_lawful
from canvas.light.model import LightModel, build_light, load_light, predict_gain, stack_layers
from canvas.light.spec import LightSpec
from tests.canvas.light.subject import build_background, build_product

TINY = LightSpec(image_size=16, channels=(8, 8, 8, 8), hidden=8)


def build_moved(scale: float = 1.0) -> LightModel:
    """A network that has learnt something: its last layer is random."""
    torch.manual_seed(0)
    model = build_light(TINY)
    torch.nn.init.normal_(model.head[-1].weight, std=scale)
    return model.eval()


def test_a_new_network_leaves_the_product_as_it_is():
    torch.manual_seed(0)
    made = build_light(TINY)(torch.rand(2, 7, 16, 16), torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.0, 0.0, 1.0, 1.0]]))
    assert made.shape == (2, GRID, GRID, 3)
    assert not made.any()


def test_it_sees_scene_product_and_place(tmp_path: Path):
    model = build_moved()
    product = build_product()
    pixels, alpha = np.array(product.convert("RGB")), np.asarray(product.getchannel("A"), np.float32) / 255
    scene = build_background(product.size)
    made = predict_gain(model, pixels, alpha, scene)
    assert made.shape == (GRID, GRID, 3)
    assert np.ptp(made, axis=(0, 1)).min() > 0
    hidden = np.where(alpha[..., None] == 1, 0, scene).astype(np.uint8)  # what lies behind the product does not matter
    assert np.array_equal(predict_gain(model, pixels, alpha, hidden), made)
    for changed in ((pixels, alpha, scene // 2), (pixels // 2, alpha, scene), (pixels, np.roll(alpha, 5, 0), scene)):
        assert not np.array_equal(predict_gain(model, *changed), made)
    assert all(check.holds for check in check_grid(make_lawful(made)))
    model.save_pretrained(tmp_path)
    assert np.array_equal(predict_gain(load_light(tmp_path), pixels, alpha, scene), made)


def test_layers_are_of_one_size_whatever_the_images_is():
    for size in ((8, 8), (40, 17), (100, 300)):
        alpha = np.ones(size, np.float32)
        layers = stack_layers(np.full((*size, 3), 200, np.uint8), alpha, np.zeros((*size, 3), np.uint8), 16)
        assert layers.shape == (7, 16, 16)
        assert layers[:, 3, 3].tolist() == [200, 200, 200, 255, 0, 0, 0]


def test_a_folder_without_a_network_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="name a directory that the train_light stage wrote"):
        load_light(tmp_path)
