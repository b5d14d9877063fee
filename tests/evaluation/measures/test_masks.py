import numpy as np
import pytest

from evaluation.measures.masks import boundary_f, compute_mask_metrics, iou, score_fringe, score_mask


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[y0:y1, x0:x1] = True
    return mask


EMPTY = rectangle(0, 0, 0, 0)
SQUARE = rectangle(20, 20, 60, 60)


def test_iou():
    assert iou(SQUARE, SQUARE) == 1
    assert iou(SQUARE, rectangle(20, 20, 60, 40)) == 0.5
    assert iou(SQUARE, EMPTY) == 0
    assert iou(EMPTY, EMPTY) == 1


def test_a_boundary_within_the_tolerance_is_found_and_beyond_it_is_not():
    # 0.008 of the diagonal of 141 pixels: 1.13 pixels
    assert boundary_f(SQUARE, SQUARE) == 1
    assert boundary_f(rectangle(21, 21, 59, 59), SQUARE) == pytest.approx(1, abs=0.02)
    assert boundary_f(rectangle(23, 23, 57, 57), SQUARE) == 0
    assert boundary_f(rectangle(23, 23, 57, 57), SQUARE, tolerance=0.04) == 1


def test_a_boundary_half_found_counts_half():
    # The right half is missing: all that is drawn but the new edge is right, half of the true boundary is found.
    measure = boundary_f(rectangle(20, 20, 40, 60), SQUARE)
    assert 0.5 < measure < 0.7


def test_boundaries_of_nothing():
    assert boundary_f(EMPTY, EMPTY) == 1
    assert boundary_f(SQUARE, EMPTY) == 0
    assert boundary_f(EMPTY, SQUARE) == 0
    assert boundary_f(np.ones((50, 50), bool), np.ones((50, 50), bool)) == 1


def test_metrics_keep_splits_and_empty_pictures_apart():
    scores = [
        score_mask("a", "unseen_view", SQUARE, SQUARE),
        score_mask("b", "unseen_view", rectangle(20, 20, 60, 40), SQUARE),
        score_mask("c", "unseen_view", SQUARE, EMPTY),
        score_mask("d", "unseen_product", SQUARE, SQUARE),
    ]
    metrics = compute_mask_metrics(scores)
    assert list(metrics) == ["unseen_product", "unseen_view"]
    assert metrics["unseen_view"]["iou"] == 0.75
    assert metrics["unseen_view"]["iou_low"] == 0.5
    assert metrics["unseen_view"]["iou_high"] == 1
    assert metrics["unseen_view"]["empty_right"] == 0
    assert metrics["unseen_view"]["pins_with_product"] == 2
    assert "empty_right" not in metrics["unseen_product"]
    assert compute_mask_metrics([]) == {}


def test_a_fringe_is_as_wide_as_it_is_visible():
    """A rim of two pixels that is far too bright; the product's middle does not count."""
    alpha = np.zeros((40, 40), np.float32)
    alpha[10:30, 10:30] = 1
    truth = np.full((40, 40, 3), 20, np.uint8)
    made, middle = truth.copy(), truth.copy()
    made[9:31, 9:31] = 200
    made[11:29, 11:29] = 20
    middle[18:22, 18:22] = 200
    assert score_fringe(truth, truth, alpha, 4) == score_fringe(middle, truth, alpha, 4)
    score = score_fringe(made, truth, alpha, 4)
    assert score.width == pytest.approx((22**2 - 18**2) / 76)
    assert score.error > 20
    faint = np.where(made == 200, 30, made).astype(np.uint8)
    assert score_fringe(faint, truth, alpha, 4).width == 0
    assert score_fringe(truth, truth, alpha, 4).error == 0
