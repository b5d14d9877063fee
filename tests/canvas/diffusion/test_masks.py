from __future__ import annotations

import numpy as np
import pytest

from canvas.diffusion.masks import MaskErrorSpec, MaskSpec, boxes, disturbed, inner_box, random_mask, strokes

SHARES = MaskSpec(everything=0.25, boxes=0.25, borders=0.25)


def test_everything_is_painted_as_often_as_asked():
    random = np.random.default_rng(0)
    masks = [random_mask(random, 32, 48, SHARES) for _ in range(1000)]
    assert {mask.shape for mask in masks} == {(32, 48)}
    assert np.mean([not mask.any() for mask in masks]) == pytest.approx(0.25, abs=0.04)
    assert not any(mask.all() for mask in masks)


@pytest.mark.parametrize(("kind", "least", "most"), [(strokes, 0.1, 0.7), (boxes, 0.1, 0.6), (inner_box, 0.1, 0.6)])
def test_holes_have_a_sensible_mean_area(kind, least, most):
    random = np.random.default_rng(1)
    areas = [kind(random, 64, 64).mean() for _ in range(200)]
    assert least < np.mean(areas) < most
    assert np.std(areas) > 0.05
    assert min(areas) > 0


def test_same_seed_same_masks():
    first, second = ([random_mask(np.random.default_rng(7), 64, 64, SHARES)] for _ in range(2))
    assert np.array_equal(first, second)


def test_one_pixel_pictures_work():
    random = np.random.default_rng(0)
    for _ in range(50):
        assert random_mask(random, 1, 1, SHARES).shape == (1, 1)


def _disc(size: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 4) ** 2


def test_mask_errors_go_both_ways_and_stay_near():
    random = np.random.default_rng(0)
    mask = _disc()
    areas = np.array([disturbed(random, mask, MaskErrorSpec(shift=0.05, cut=0.0)).sum() for _ in range(200)])
    assert (areas < mask.sum()).any()
    assert (areas > mask.sum()).any()
    radius = np.sqrt(areas / np.pi)
    assert np.abs(radius - 16).max() < 0.05 * 64 + 1.5


def test_cuts_take_bites_from_the_mask():
    random = np.random.default_rng(0)
    mask = _disc()
    for _ in range(20):
        found = disturbed(random, mask, MaskErrorSpec(shift=0.0, cut=1.0))
        assert found.any()
        assert not (found & ~mask).any()
        assert 0.5 < found.sum() / mask.sum() < 1


def test_errors_never_empty_a_mask():
    random = np.random.default_rng(0)
    speck = np.zeros((32, 32), bool)
    speck[4, 4] = True
    assert all(disturbed(random, speck, MaskErrorSpec(shift=0.2, cut=1.0)).any() for _ in range(50))


@pytest.mark.parametrize("shares", [(-0.1, 0.5, 0.5), (0.5, 0.5, 0.1)])
def test_shares_are_checked(shares):
    with pytest.raises(ValueError, match="must be 0 or more and add up to 1 or less"):
        MaskSpec(everything=shares[0], boxes=shares[1], borders=shares[2])
