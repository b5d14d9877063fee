"""An old border that shows, and one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from canvas.layout.compose import fade_border
from canvas.layout.formats import Rectangle
from evaluation.measures.canvases.borders import compute_border_gradient_ratio

BOX = Rectangle(40, 0, 80, 160)


def texture(seed: int, level: int) -> np.ndarray:
    """Noise of one kind round a level."""
    return np.random.default_rng(seed).integers(level - 15, level + 15, (160, 160, 3)).astype(np.uint8)


def ratio(image: np.ndarray) -> float:
    return compute_border_gradient_ratio(image, BOX, reach=3)


def test_what_goes_on_has_no_border() -> None:
    assert ratio(texture(0, 100)) == pytest.approx(1, abs=0.1)


def test_a_photograph_that_is_pasted_has_one_and_a_band_takes_it_away() -> None:
    new, old = texture(0, 100).astype(float), texture(1, 160).astype(float)
    pasted, blended = new.copy(), new.copy()
    pasted[BOX.region] = old[BOX.region]
    alpha = fade_border(BOX, (160, 160))[..., None]
    blended[BOX.region] = alpha * old[BOX.region] + (1 - alpha) * new[BOX.region]
    assert ratio(pasted.astype(np.uint8)) > 4
    assert 1.1 < ratio(blended.astype(np.uint8)) < 2.5
    assert ratio(blended.astype(np.uint8)) < ratio(pasted.astype(np.uint8)) / 2


def test_a_line_of_another_colour_is_a_border() -> None:
    image = texture(0, 100)
    image[40] = 255
    assert ratio(image) > 4


@pytest.mark.parametrize(
    ("image", "box"),
    [(texture(0, 100), Rectangle(0, 0, 160, 160)), (np.full((160, 160, 3), 7, np.uint8), BOX)],
)
def test_nothing_to_measure_is_said(image: np.ndarray, box: Rectangle) -> None:
    with pytest.raises(ValueError, match="no border to measure"):
        compute_border_gradient_ratio(image, box, reach=3)
