from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from canvas.masks.simulation import HoleSpec, sample_box, sample_boxes, sample_mask, sample_strokes
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
