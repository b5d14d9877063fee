from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from canvas.styles.pins import LabelledProducts
from evaluation.generator.leakage import (
    GREY,
    NO_PRODUCT,
    ProductJudge,
    build_examples,
    build_small_examples,
    compute_judge_metrics,
    detect_leaks,
    find_free_corners,
    hide_pixels,
    insert_products,
)


def build_products(count: int, seed: int, side: int = 32) -> LabelledProducts:
    """Red discs ("Lamps") and blue bars ("Mugs"), left or right, before grey noise."""
    random = np.random.default_rng(seed)
    emptied = random.integers(90, 140, (count, side, side, 3)).astype(np.uint8)
    views, masks, categories = emptied.copy(), np.zeros((count, side, side), bool), []
    rows, columns = np.mgrid[:side, :side]
    for at in range(count):
        centre = side // 4 if at % 4 < 2 else 3 * side // 4
        disc = np.hypot(rows - side / 2, columns - centre) < side / 5
        bar = (np.abs(rows - side / 2) < side / 3) & (np.abs(columns - centre) < side / 12)
        masks[at] = disc if at % 2 else bar
        views[at][masks[at]] = (230, 20, 20) if at % 2 else (20, 20, 230)
        categories.append("Lamps" if at % 2 else "Mugs")
    return LabelledProducts(views, masks, categories, emptied)


def test_the_judge_sees_a_product_beside_what_is_hidden():
    judge = ProductJudge.fit(build_products(24, seed=0), seed=0)
    assert judge is not None
    figures = compute_judge_metrics(judge, build_products(8, seed=1), seed=1)
    assert figures["product_judge_right"] > 0.8
    assert figures["product_judge_false_alarms"] < 0.2
    known = build_products(4, seed=2)
    left, right = known.masks[1], known.masks[3]
    second = known.views[3].copy()
    second[left] = known.views[1][left]  # a lamp on either side
    views = np.stack([second, second, known.backgrounds[0]])
    assert judge.recognize_products(views, np.stack([left, left | right, left])) == ["Lamps", NO_PRODUCT, NO_PRODUCT]


def test_what_is_learnt_from_shows_most_of_its_product():
    known = build_products(24, seed=0)
    views, labels = build_examples(known, seed=0)
    assert labels.count(NO_PRODUCT) == 24
    assert 0 < len(labels) - 24 < 24  # a cover over its own place hides it
    assert (views == GREY).all(axis=-1).any(axis=(1, 2)).all()
    assert np.array_equal(hide_pixels(known.views, np.zeros_like(known.masks)), known.views)


def test_without_two_kinds_there_is_no_judge():
    none = build_products(1, seed=0)
    empty = LabelledProducts(none.views[:0], none.masks[:0], [], none.backgrounds[:0])
    assert ProductJudge.fit(empty, seed=0) is None


def test_a_leak_is_decided_where_the_categories_differ():
    seen = ["Lamps", "Mugs", "Lamps", NO_PRODUCT]
    assert detect_leaks(seen, ["Lamps", "Lamps", "Lamps", None], ["Mugs", "Mugs", "Lamps", "Mugs"]) == [
        True,
        False,
        None,
        None,
    ]


def test_a_leak_is_put_beside_what_is_hidden_and_is_detected():
    known, judge = build_products(8, seed=3), ProductJudge.fit(build_products(24, seed=0), seed=0)
    masks = known.masks.copy()
    masks[4] = True  # no room
    categories = ["Lamps", "Mugs", None, "Lamps", "Lamps", "Shoes", "Mugs", "Mugs"]  # no shoe is known
    copies, places = insert_products(known.backgrounds, masks, categories, known, seed=0)
    assert places == [0, 1, 3, 6, 7]
    for copy, place in zip(copies, places, strict=True):
        changed = (copy != known.backgrounds[place]).any(axis=-1)
        assert changed.any()
        assert not (changed & masks[place]).any()
        rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 11  # a third of 32
    labels = judge.recognize_products(copies, masks[places])
    assert np.mean([label == categories[place] for label, place in zip(labels, places, strict=True)]) > 0.5
    again, _ = insert_products(known.backgrounds, masks, categories, known, seed=0)
    assert np.array_equal(copies, again)


def test_the_judge_learns_what_small_products_look_like():
    """Products that all stand in one place, so that what is hidden leaves nothing of one at its own size."""
    known = build_products(24, seed=0)
    known = replace(known, masks=known.masks[[1] * 24], views=known.backgrounds.copy())
    colours = np.where(np.arange(24)[:, None] % 2, (230, 20, 20), (20, 20, 230)).astype(np.uint8)
    known.views[known.masks] = colours.repeat(known.masks[0].sum(), axis=0)
    assert set(build_examples(known, seed=0)[1]) == {NO_PRODUCT}
    small, labels = build_small_examples(known, seed=0)
    assert labels == known.categories
    judge = ProductJudge.fit(known, seed=0)
    assert judge is not None
    assert judge.recognize_products(small, np.zeros_like(known.masks)) == known.categories
    assert set(judge.recognize_products(known.backgrounds, known.masks)) == {NO_PRODUCT}


@pytest.mark.parametrize(("side", "size"), [(12, (1, 1)), (20, (3, 6)), (48, (16, 11)), (64, (21, 21)), (9, (9, 9))])
def test_a_corner_is_free_where_no_pixel_is_touched(side, size):
    draw = np.random.default_rng(side)
    for share in (0.0, 0.002, 0.02, 0.3, 1.0):
        mask, shape = draw.random((side, side)) < share, draw.random(size) < 0.6
        touched = (sliding_window_view(mask, size) & shape).any(axis=(2, 3))
        assert np.array_equal(find_free_corners(mask, shape), np.argwhere(~touched))


def test_room_for_a_leak_takes_little_memory():
    known = build_products(2, seed=0, side=256)
    tracemalloc.start()
    _, places = insert_products(known.views, known.masks, known.categories, known, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert places == [0, 1]
    assert peak < 8e6  # each place with each pixel of the product: 200 MB


def test_leaks_of_nothing_known():
    known = build_products(2, seed=0)
    copies, places = insert_products(known.views, known.masks, [None, "Shoes"], known, seed=0)
    assert copies.shape == (0, 32, 32, 3)
    assert places == []
