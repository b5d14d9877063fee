from __future__ import annotations

import numpy as np
import pytest

from evaluation.measures.colours import compare_colours, measure_background_colours


def test_products_and_images_without_a_background_do_not_count() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8], pixels[8:] = (10, 20, 30), (255, 20, 30)
    top = np.zeros((16, 16), bool)
    top[:8] = True
    images, masks = [pixels] * 4, [top, ~top, top & False, top | True]
    rows = measure_background_colours(images, masks)
    assert rows.tolist() == [[255, 20, 30, 1], [10, 20, 30, 0], [132.5, 20, 30, 0.5]]


def test_no_images_have_no_rows_and_cannot_be_compared() -> None:
    rows = measure_background_colours([], [])
    assert rows.shape == (0, 4)
    with pytest.raises(ValueError, match="colours of 0 generated and 1 real images"):
        compare_colours(rows, np.zeros((1, 4)))


def test_one_colour_outside_the_range_is_enough() -> None:
    real = np.array([[90, 80, 70, 0.0], [110, 100, 90, 0.1]])
    inside = compare_colours(np.array([[80, 90, 80, 0.0], [120, 90, 80, 0.1]]), real)  # means count, not images
    assert inside.is_in_range
    burnt = compare_colours(np.array([[100, 90, 80, 0.2]]), real)
    assert not burnt.is_in_range
    assert burnt.to_metrics()["clipped_high"] == 0.1
