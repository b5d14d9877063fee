from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from canvas.masks.simulation import (
    HIDDEN_SHARES,
    HoleSpec,
    sample_box,
    sample_boxes,
    sample_mask,
    sample_photograph,
    sample_strokes,
)
from lifecycle.declare.params import read_section

SHARES = HoleSpec(everything=0.25, boxes=0.25, borders=0.25)


def test_everything_is_painted_as_often_as_asked():
    random = np.random.default_rng(0)
    masks = [sample_mask(random, 32, 48, SHARES) for _ in range(1000)]
    assert {mask.shape for mask in masks} == {(32, 48)}
    assert np.mean([not mask.any() for mask in masks]) == pytest.approx(0.25, abs=0.04)
    assert not any(mask.all() for mask in masks)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [(sample_strokes, 0.1, 0.7), (sample_boxes, 0.1, 0.6), (partial(sample_box, small=0.3, large=0.8), 0.1, 0.6)],
)
def test_holes_have_a_sensible_mean_area(kind, least, most):
    random = np.random.default_rng(1)
    areas = [kind(random, 64, 64).mean() for _ in range(200)]
    assert least < np.mean(areas) < most
    assert np.std(areas) > 0.05
    assert min(areas) > 0


def test_a_photograph_is_a_rectangle_at_one_border_or_more():
    random = np.random.default_rng(3)
    heights, widths = [], []
    for _ in range(300):
        mask = sample_photograph(random, np.zeros((60, 80), bool))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)  # no more than the rectangle
        heights.append(len(rows) / 60)
        widths.append(len(columns) / 80)
    hidden = 1 - np.stack([heights, widths])
    assert ((hidden == 0) | ((hidden > HIDDEN_SHARES[0] - 0.02) & (hidden < HIDDEN_SHARES[1] + 0.02))).all()
    assert (hidden > 0).any(0).all()  # something is generated
    assert np.mean((hidden > 0).all(0)) == pytest.approx(1 / 3, abs=0.1)


def test_a_photograph_holds_its_product():
    random, product = np.random.default_rng(4), np.zeros((60, 80), bool)
    product[50:58, 3:20] = True
    masks = np.stack([sample_photograph(random, product) for _ in range(200)])
    assert masks[:, product].all()
    assert not masks.all((1, 2)).any()
    assert (masks[:, 0, 40] | masks[:, 30, 79]).any()
    assert sample_photograph(random, np.ones((60, 80), bool)).all()


def test_same_seed_same_masks():
    first, second = ([sample_mask(np.random.default_rng(7), 64, 64, SHARES)] for _ in range(2))
    assert np.array_equal(first, second)


def test_one_pixel_pictures_work():
    random = np.random.default_rng(0)
    for _ in range(50):
        assert sample_mask(random, 1, 1, SHARES).shape == (1, 1)


@pytest.mark.parametrize(
    ("everything", "message"), [(-0.1, "must be 0 or more"), (0.5, r"\(0\.5, 0\.5, 0\.1\) must add up to 1 or less")]
)
def test_shares_are_checked(everything, message):
    with pytest.raises(ValueError, match=message):
        read_section(HoleSpec, "holes", {"holes": {"everything": everything, "boxes": 0.5, "borders": 0.1}})
