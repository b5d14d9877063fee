"""What is missing from a scene, and what is too much."""

from __future__ import annotations

import numpy as np
import pytest

from canvas.layout.formats import Rectangle
from evaluation.measures.canvases.products import ProductCount, count_products

FIRST, SECOND = Rectangle(20, 10, 30, 20), Rectangle(20, 60, 30, 20)


def build_owners() -> np.ndarray:
    owners = np.full((80, 120), -1, np.int8)
    owners[FIRST.region], owners[SECOND.region] = 0, 1
    return owners


def recognize(*boxes: Rectangle) -> np.ndarray:
    alpha = np.zeros((80, 120), np.float32)
    for box in boxes:
        alpha[box.region] = 0.9
    return alpha


def count(*boxes: Rectangle) -> ProductCount:
    owners = build_owners()
    return count_products(recognize(*boxes), owners, (owners >= 0).astype(np.float32))


def test_all_there_and_nothing_else() -> None:
    assert count(FIRST, SECOND) == ProductCount((), ())


def test_what_is_not_recognized_is_omitted() -> None:
    assert count(FIRST).omitted == (1,)
    assert count().omitted == (0, 1)
    assert count(FIRST, Rectangle(20, 60, 30, 9)).omitted == (1,)  # less than half of it
    assert count(FIRST, Rectangle(20, 60, 30, 11)).omitted == ()


def test_another_thing_is_extra_where_it_is_large() -> None:
    another = Rectangle(55, 90, 20, 25)
    assert count(FIRST, SECOND, another).extra == (another,)
    assert count(FIRST, SECOND, Rectangle(55, 90, 8, 8)).extra == ()


@pytest.mark.parametrize("grown", [1, 2])
def test_an_edge_that_is_off_is_no_other_thing(grown: int) -> None:
    wider = Rectangle(FIRST.top - grown, FIRST.left - grown, FIRST.height + 2 * grown, FIRST.width + 2 * grown)
    assert count(wider, SECOND) == ProductCount((), ())
