"""A photograph's border in its extension: a step in brightness goes, what is drawn there stays."""

from __future__ import annotations

import numpy as np
import pytest

from canvas.inference.scene.borders import continue_photograph, fill_smoothly
from canvas.layout.formats import Rectangle
from evaluation.measures.canvases.borders import compute_border_gradient_ratio

BOX = Rectangle(0, 40, 96, 48)


def build_texture(level: float, seed: int) -> np.ndarray:
    grey = level + np.random.default_rng(seed).normal(0, 6, (96, 128, 1))
    return np.clip(grey + np.array([0, 4, -4]), 0, 255).astype(np.uint8)


def build_known() -> np.ndarray:
    known = np.zeros((96, 128), bool)
    known[BOX.region] = True
    return known


@pytest.mark.parametrize("step", [-40, -12, 12, 40])
def test_a_step_in_brightness_goes(step: int) -> None:
    photograph, generated, known = build_texture(120, 0), build_texture(120 + step, 1), build_known()
    pasted = np.where(known[..., None], photograph, generated)
    made = continue_photograph(generated, photograph, known)
    assert np.array_equal(made[known], photograph[known])
    before, after = (compute_border_gradient_ratio(image, BOX, reach=2) for image in (pasted, made))
    plain = compute_border_gradient_ratio(photograph, BOX, reach=2)
    assert before > 1.3
    assert after < 1.1 * plain


def test_what_goes_on_already_stays() -> None:
    image, known = build_texture(120, 0), build_known()
    made = continue_photograph(image, image, known)
    assert np.abs(made.astype(int) - image).mean() < 1.5


def test_texture_and_far_colours_stay() -> None:
    generated, known = build_texture(120, 1), build_known()
    generated[:, :6] = 200
    made = continue_photograph(generated, build_texture(150, 0), known).astype(int)
    near = made[:, 36:39] - generated[:, 36:39].astype(int)
    assert 20 < near.mean() < 40
    assert made[:, :6].mean() - 200 < 22  # the offset fades
    detail = (
        (made - np.roll(made, 1, axis=0))[1:, 8:38],
        (generated.astype(int) - np.roll(generated, 1, axis=0))[1:, 8:38],
    )
    assert np.abs(detail[0] - detail[1]).mean() < 3


def test_a_thing_that_ends_at_the_border_does_not_run_out() -> None:
    photograph, generated, known = build_texture(120, 0), build_texture(105, 1), build_known()
    photograph[40:60] = 10
    moved = continue_photograph(generated, photograph, known).astype(int) - generated
    assert abs(moved[45:55, 30:40].mean() - 15) < 8
    assert abs(moved[5:30, 34:40].mean() - 15) < 3


@pytest.mark.parametrize("share", [0, 1])
def test_without_a_border_nothing_changes(share: int) -> None:
    generated, known = build_texture(120, 1), np.full((96, 128), bool(share))
    assert np.array_equal(continue_photograph(generated, build_texture(150, 0), known), generated)


def test_what_is_missing_lies_between_what_is_there() -> None:
    values, weights = np.zeros((33, 47, 3), np.float32), np.zeros((33, 47), np.float32)
    values[:, :3], weights[:, :3] = -5, 1
    values[:, -3:], weights[:, -3:] = 5, 1
    filled = fill_smoothly(values, weights)[..., 0]
    assert np.array_equal(filled[:, :3], values[:, :3, 0])
    assert np.abs(filled).max() <= 5
    assert (np.diff(filled.mean(axis=0)) > -0.3).all()
    assert abs(filled[:, 23].mean()) < 1.5
    assert np.abs(np.diff(filled, axis=1)).max() < 2.5
