from __future__ import annotations

import numpy as np
import pytest

from canvas.inference.product import Product
from evaluation.generator.image_scores import measure_seam_gradients
from evaluation.judges.judges import Judges

SIDE = 32


def product(top: int, left: int, side: int = 12) -> Product:
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[top : top + side, left : left + side] = 1
    return Product(np.zeros((SIDE, SIDE, 3), np.uint8), alpha, "mask")


def test_a_visible_seam_has_a_larger_gradient():
    smooth = np.tile(np.linspace(60, 120, SIDE).astype(np.uint8)[None, :, None], (SIDE, 1, 3))
    pasted = smooth.copy()
    pasted[10:22, 10:22] = 250
    plain, seen = measure_seam_gradients([smooth, pasted], [product(10, 10)] * 2, side=SIDE, reach=2)
    assert seen > 5 * plain > 0


def test_no_edge_no_seam():
    nothing = Product(np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.float32), "mask")
    assert measure_seam_gradients([nothing.pixels], [nothing], side=SIDE, reach=2) == [None]


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [("in a forest", "forest"), ("on a city square", "city square"), ("on the moon", None)],
)
def test_the_scene_of_a_prompt(prompt, scene):
    assert Judges(("city square", "forest"), None).match_prompt(prompt) == scene


def test_nobody_judges():
    assert Judges((), None).recognize_scenes(np.zeros((2, 3), np.float32)) == [(None, None)] * 2
