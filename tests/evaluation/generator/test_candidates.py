from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evaluation.generator.candidates import classify_aspect, classify_mask_size, compute_diversities


def build_image(seed: int, contrast: float = 40) -> Image.Image:
    values = np.random.default_rng(seed).normal(128, contrast, (48, 40, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("share", "size"), [(0.0, "small"), (0.0999, "small"), (0.1, "medium"), (0.25, "large"), (0.9, "large")]
)
def test_mask_size(share: float, size: str) -> None:
    assert classify_mask_size(share, (0.1, 0.25)) == size


@pytest.mark.parametrize(
    ("size", "aspect"), [((100, 100), "square"), ((110, 100), "square"), ((150, 100), "tall"), ((100, 178), "wide")]
)
def test_aspect(size: tuple[int, int], aspect: str) -> None:
    assert classify_aspect(*size) == aspect


def test_diversity_is_within_item_and_model() -> None:
    rows = [
        {"item_id": item, "model": model}
        for item, model in [("a", "new"), ("a", "new"), ("a", "new"), ("a", "old"), ("a", "old"), ("b", "new")]
    ]
    images = [build_image(0), build_image(0), build_image(1), build_image(2), build_image(2), build_image(3)]
    one, same, other, old, again, alone = compute_diversities(rows, images, 32)
    assert one == same  # the mean of nothing and the distance to the third
    assert other == pytest.approx(2 * one)
    assert one > 0
    assert old == again == 0
    assert alone is None
