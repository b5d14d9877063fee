from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from canvas.masks.simulation import MaskErrors, add_blob, cut_part, dilate_by_disk, erode_by_disk, simulate_errors
from lifecycle.declare.params import read_section

ERRORS = MaskErrors(erode=0.5, dilate=0.5, cut=0.5, blob=0.5, reach=0.1)
NONE = MaskErrors(erode=0, dilate=0, cut=0, blob=0, reach=0.1)


def disk(radius: int = 30, size: int = 100) -> np.ndarray:
    canvas = np.zeros((size, size), np.uint8)
    cv2.circle(canvas, (size // 2, size // 2), radius, 1, -1)
    return canvas.astype(bool)


def test_erosion_and_dilation_move_the_edge_by_their_radius():
    mask = disk(30)
    for changed, radius in ((erode_by_disk(mask, 5), 25), (dilate_by_disk(mask, 5), 35)):
        assert np.sqrt(changed.sum() / np.pi) == pytest.approx(radius, abs=0.7)
    assert not (erode_by_disk(mask, 5) & ~mask).any()
    assert not (mask & ~dilate_by_disk(mask, 5)).any()


def test_the_pictures_border_does_not_erode():
    assert erode_by_disk(np.ones((20, 20), bool), 3).all()


def test_a_cut_takes_away_5_to_30_percent_and_adds_nothing():
    mask, shares = disk(), []
    for seed in range(40):
        left = cut_part(mask, np.random.default_rng(seed))
        assert not (left & ~mask).any()
        shares.append(left.sum() / mask.sum())
    assert min(shares) > 0.68
    assert max(shares) < 0.96
    assert max(shares) - min(shares) > 0.1


def test_a_blob_adds_background_that_touches_the_product():
    mask = disk()
    for seed in range(20):
        more = add_blob(mask, np.random.default_rng(seed))
        assert not (mask & ~more).any()
        assert 0.01 < (more.sum() - mask.sum()) / mask.sum() < 0.4
        assert cv2.connectedComponents(more.astype(np.uint8))[0] == 2


def test_the_same_seed_gives_the_same_errors_and_another_gives_others():
    first, second, other = (simulate_errors(disk(), ERRORS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_no_errors_and_no_product_change_nothing():
    assert (simulate_errors(disk(), NONE, np.random.default_rng(0)) == disk()).all()
    empty = np.zeros((50, 50), bool)
    assert not simulate_errors(empty, ERRORS, np.random.default_rng(0)).any()


def test_a_thin_product_is_never_lost():
    thin = np.zeros((50, 50), bool)
    thin[25, 10:40] = True
    always = replace(NONE, erode=1.0)
    assert all(simulate_errors(thin, always, np.random.default_rng(seed)).any() for seed in range(10))


@pytest.mark.parametrize(
    ("change", "named"), [({"cut": 1.2}, r"'cut' .* is 1\.2"), ({"reach": 0.0}, r"'reach' .* is 0\.0")]
)
def test_wrong_errors_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        read_section(MaskErrors, "errors", {"errors": asdict(ERRORS) | change})
