"""An image that repeats itself, and one that does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation.measures.canvases.repetition import compute_repetition


def build_scene(width: int, seed: int) -> np.ndarray:
    """Blobs of every size, 64 pixels tall."""
    noise = np.random.default_rng(seed).normal(size=(64, width, 3))
    return np.clip(128 + 60 * cv2.GaussianBlur(noise, (0, 0), 4) / 0.07, 0, 255).astype(np.uint8)


def test_a_copy_further_on_is_repetition() -> None:
    part = build_scene(64, 0)
    repeated = np.concatenate([part, part, part], axis=1)
    plain = build_scene(192, 1)
    assert compute_repetition(repeated) > 0.95
    assert compute_repetition(plain) < 0.9
    assert compute_repetition(repeated) - compute_repetition(plain) > 0.1


def test_a_copy_in_another_light_is_repetition_too() -> None:
    part = build_scene(64, 0)
    darker = (part * 0.7).astype(np.uint8)
    assert compute_repetition(np.concatenate([part, darker, part], axis=1)) > 0.95


@pytest.mark.parametrize("turn", [False, True])
def test_size_and_direction_hardly_matter(turn: bool) -> None:
    image = build_scene(192, 1)
    large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    seen = np.ascontiguousarray(large.swapaxes(0, 1)) if turn else large
    assert compute_repetition(seen) == pytest.approx(compute_repetition(image), abs=0.03)


def test_what_is_near_does_not_count() -> None:
    """One wide stripe is alike to its own surroundings alone."""
    image = build_scene(192, 2)
    image[:, 60:80] = 255
    assert compute_repetition(image) < 0.95


def test_a_flat_image_has_nothing_to_repeat() -> None:
    with pytest.raises(ValueError, match="no repetition to measure: all of the image is flat"):
        compute_repetition(np.full((64, 192, 3), 90, np.uint8))
