from __future__ import annotations

import numpy as np
import pytest

from canvas.inference.conditioning import frame_for_pipeline
from canvas.inference.product import build_masked_product, build_product
from evaluation.measures.mosaics import list_grids, measure_mosaic
from tests.canvas.inference.conftest import cutout, pipeline  # noqa: F401

GRIDS = {"cell": 8, "token": 16}


def draw_tiles(side: int, height: int, width: int) -> np.ndarray:
    """Noise of a few levels, and a level of its own for each tile."""
    rng = np.random.default_rng(0)
    tiles = rng.integers(40, 200, (-(-height // side), -(-width // side), 3))
    levels = np.repeat(np.repeat(tiles, side, 0), side, 1)[:height, :width]
    return (levels + rng.integers(0, 4, levels.shape)).astype(np.uint8)


def test_tiles_are_seen_on_their_own_grid_alone(pipeline):  # noqa: F811
    """The frame is as large as the image here, 64 x 64 pixels."""
    product = build_product(cutout(64, 64))
    framed = [frame_for_pipeline(pipeline, product)]
    assert (framed[0].frame.height, framed[0].frame.width) == (64, 64)
    (ratio,) = measure_mosaic([draw_tiles(16, 64, 64)], framed, GRIDS)["token_gradient_ratio"]
    assert ratio > 10
    ratios = measure_mosaic([draw_tiles(64, 64, 64)], framed, GRIDS)
    assert all(ratio == pytest.approx(1, abs=0.2) for (ratio,) in ratios.values())


def test_what_shows_no_background_has_no_ratio(pipeline):  # noqa: F811
    nearly_all = np.ones((64, 64), bool)
    nearly_all[0, 0] = False
    framed = [frame_for_pipeline(pipeline, build_masked_product(cutout(64, 64).convert("RGB"), nearly_all))]
    assert measure_mosaic([draw_tiles(16, 64, 64)], framed, GRIDS)["token_gradient_ratio"] == [None]


def test_a_generator_knows_its_grids(pipeline):  # noqa: F811
    assert list_grids(pipeline) == {"cell": 8}  # a UNet's
