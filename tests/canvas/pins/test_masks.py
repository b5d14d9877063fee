import io
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from PIL import Image

from canvas.pins.masks import (
    MaskLimits,
    apply_guided_filter,
    compute_box,
    compute_confidence,
    compute_largest_part,
    count_touched_sides,
    decode_alpha,
    decode_mask,
    encode_alpha,
    encode_mask,
    find_rejection_reason,
    threshold_alpha,
)
from lifecycle.declare.params import read_section

LIMITS = MaskLimits(
    threshold=0.5, min_part=0.1, min_area=0.01, max_area=0.7, max_sides=1, min_confidence=0.8, min_largest_part=0.8
)


def rectangle(x0: int, y0: int, x1: int, y1: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_speck_is_dropped_and_a_second_part_is_not():
    alpha = (rectangle(10, 10, 50, 50) | rectangle(70, 70, 90, 90) | rectangle(95, 5, 97, 7)).astype(np.float32)
    mask = threshold_alpha(alpha, LIMITS)
    assert (mask == (rectangle(10, 10, 50, 50) | rectangle(70, 70, 90, 90))).all()
    assert compute_largest_part(mask) == pytest.approx(1600 / 2000)


def test_the_threshold_itself_is_product():
    assert threshold_alpha(np.full((4, 4), 0.5, np.float32), LIMITS).all()
    assert not threshold_alpha(np.full((4, 4), 0.499, np.float32), LIMITS).any()


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (rectangle(0, 0, 0, 0), "empty"),
        (rectangle(10, 10, 15, 15), "too small"),
        (rectangle(5, 5, 95, 95), "too large"),
        (rectangle(0, 0, 40, 40), "touches the border"),
        (rectangle(10, 10, 30, 30) | rectangle(50, 50, 70, 70), "several parts"),
        (rectangle(20, 20, 60, 60), None),
        (rectangle(0, 20, 60, 60), None),
    ],
)
def test_the_first_reason_against_a_mask(mask, reason):
    assert find_rejection_reason(mask, mask.astype(np.float32), LIMITS) == reason


def test_an_unsure_matte_is_rejected():
    mask = rectangle(20, 20, 60, 60)
    unsure = np.where(mask, 0.6, 0.3).astype(np.float32)
    assert compute_confidence(mask, unsure) == pytest.approx(1600 * 0.6 / (1600 + 8400 * 0.3), rel=1e-5)
    assert find_rejection_reason(mask, unsure, LIMITS) == "low confidence"
    assert find_rejection_reason(mask, unsure, replace(LIMITS, min_confidence=0.0)) is None


def test_confidence_of_a_sure_mask_and_of_an_empty_one():
    mask = rectangle(20, 20, 60, 60)
    assert compute_confidence(mask, mask.astype(np.float32)) == 1.0
    assert compute_confidence(rectangle(0, 0, 0, 0), np.full((100, 100), 0.2, np.float32)) == pytest.approx(0.8)


def test_box_and_sides():
    assert compute_box(rectangle(3, 7, 20, 90)) == (3, 7, 20, 90)
    with pytest.raises(AssertionError, match="an empty mask has no box"):
        compute_box(rectangle(0, 0, 0, 0))
    assert count_touched_sides(rectangle(3, 7, 20, 90)) == 0
    assert count_touched_sides(rectangle(0, 7, 20, 100)) == 2
    assert count_touched_sides(rectangle(0, 0, 100, 100)) == 4


def test_masks_and_alphas_survive_their_files():
    mask = rectangle(3, 7, 20, 90)
    alpha = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert (decode_mask(encode_mask(mask)) == mask).all()
    assert np.abs(decode_alpha(encode_alpha(alpha)) - alpha).max() < 1e-6
    assert Image.open(io.BytesIO(encode_mask(mask))).mode == "1"
    assert Image.open(io.BytesIO(encode_alpha(alpha))).mode == "L"
    assert encode_mask(mask) == encode_mask(mask.copy())


def test_pillows_limit_refuses_no_mask_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    mask = rectangle(3, 7, 20, 90)
    assert (decode_mask(encode_mask(mask)) == mask).all()


def test_the_guided_filter_moves_a_soft_edge_to_the_pictures():
    true = rectangle(30, 30, 70, 70)
    image = Image.fromarray(np.where(true[..., None], 220, 30).repeat(3, 2).astype(np.uint8))
    off = rectangle(32, 32, 72, 72).astype(np.float32)
    rough = cv2.GaussianBlur(off, (0, 0), 2.0)
    fine = apply_guided_filter(rough, image, radius=4, epsilon=1e-3)
    assert ((rough >= 0.5) ^ true).sum() > 200
    assert ((fine >= 0.5) ^ true).sum() < 40
    assert fine.min() >= 0
    assert fine.max() <= 1


def test_the_guided_filter_leaves_an_alpha_of_one_value():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    assert np.abs(apply_guided_filter(np.full((40, 30), 0.25, np.float32), noise, 4, 1e-3) - 0.25).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"threshold": 1.5}, "'threshold' in section 'mask' is 1.5: it must be at most 1"),
        ({"min_area": 0.8}, "mask limit min_area is 0.8"),
        ({"max_sides": 5}, "'max_sides' in section 'mask' is 5: it must be at most 4"),
    ],
)
def test_wrong_limits_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        read_section(MaskLimits, "mask", {"mask": asdict(LIMITS) | change})
