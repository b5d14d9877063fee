"""Where products stand: words and JSON to boxes."""

from __future__ import annotations

import itertools
import json

import pytest

from canvas.layout.arrangement import ANCHORS
from canvas.layout.formats import FORMATS, Rectangle, parse_canvas
from canvas.layout.spec import MAX_PRODUCTS, build_layout

SIZES = [(100, 60), (50, 80), (20, 20)]  # height, width


def spots(*products: object, **others: object) -> str:
    return json.dumps({"products": list(products)} | others)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_a_size(name: str) -> None:
    width, height = FORMATS[name]
    assert parse_canvas(name) == parse_canvas(f"{width}x{height}") == (height, width)


@pytest.mark.parametrize("place", ANCHORS)
def test_a_product_keeps_its_size_and_stands_at_its_place(place: str) -> None:
    (box,) = build_layout("400x300", place=place).place([(100, 60)])
    assert (box.height, box.width) == (100, 60)
    below, right = 300 - box.top - 100, 400 - box.left - 60
    assert (box.top < below, box.left < right) == ("top" in place, "left" in place)
    assert (box.top > below, box.left > right) == ("bottom" in place, "right" in place)
    assert min(box.top, below) in (18, 100)  # a margin of 6 % where it stands at an edge
    assert min(box.left, right) in (24, 170)


@pytest.mark.parametrize(("canvas", "scale", "size"), [("400x300", 0.5, (150, 90)), ("60x300", 0.5, (50, 30))])
def test_scale_is_a_share_of_the_side_that_is_reached_first(canvas: str, scale: float, size: tuple[int, int]) -> None:
    (box,) = build_layout(canvas, scale=scale).place([(100, 60)])
    assert (box.height, box.width) == size


def test_a_product_as_large_as_the_canvas_has_no_margin() -> None:
    assert build_layout("60x100", place="bottom").place([(100, 60)]) == [Rectangle(0, 0, 100, 60)]


def test_a_row_stands_on_one_line_in_the_order_given() -> None:
    boxes = build_layout("400x300", layout="row").place(SIZES)
    assert [(box.height, box.width) for box in boxes] == SIZES
    assert {box.top + box.height for box in boxes} == {282}
    gaps = [after.left - before.left - before.width for before, after in itertools.pairwise(boxes)]
    assert gaps == [12, 12]
    assert abs(boxes[0].left - (400 - boxes[-1].left - 20)) <= 1


def test_a_scaled_row_keeps_relative_sizes() -> None:
    boxes = build_layout("400x300", layout="row", scale=0.9).place(SIZES)
    factors = [box.height / tall for box, (tall, _) in zip(boxes, SIZES, strict=True)]
    assert max(factors) - min(factors) < 0.05
    assert boxes[-1].left + boxes[-1].width - boxes[0].left in range(356, 361)


def test_heights_in_any_unit_say_how_tall_products_are_beside_each_other() -> None:
    small, large = (
        build_layout("400x300", layout="row", heights=heights, scale=0.5).place([(500, 250), (10, 10)])
        for heights in ((30, 60), (0.3, 0.6))
    )
    assert small == large
    assert small[0].height * 2 == pytest.approx(small[1].height, abs=2)
    assert small[0].width * 2 == pytest.approx(small[0].height, abs=2)


def test_a_grid_has_about_as_many_rows_as_columns() -> None:
    boxes = build_layout("400x400", layout="grid").place([(50, 50)] * 5)
    assert [sum(box.top == top for box in boxes) for top in sorted({box.top for box in boxes})] == [3, 2]


def test_a_file_gives_each_its_place() -> None:
    text = spots({"left": 10, "top": 20}, {"left": 90, "top": 0, "height": 100}, canvas="400x300")
    expected = [Rectangle(20, 10, 100, 60), Rectangle(0, 90, 100, 160)]
    assert build_layout(layout=text).place(SIZES[:2]) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"canvas": "huge"}, "the canvas 'huge' is not understood: give WIDTHxHEIGHT or story, pin"),
        ({"canvas": "0x100"}, "0 x 100 pixels is too small: give 16 or more"),
        ({"canvas": "20000x20000"}, "20000 x 20000 pixels exceeds the limit of 64000000"),
        ({"canvas": None, "layout": "row"}, "a layout needs a canvas"),
        ({"place": "below"}, "the place 'below' is unknown: use center"),
        ({"place": "keep-under"}, "the place 'keep-under' is unknown"),
        ({"scale": 0.0}, "the scale is 0: it must be above 0 and at most 1"),
        ({"scale": float("nan")}, "the scale is nan"),
        ({"scale": 1.1}, r"the scale is 1\.1"),
        ({"heights": [1, -1]}, r"the heights \[1, -1\] must be above 0"),
        ({"place": "keep", "layout": "row"}, "one photograph is kept, leave out layout"),
        ({"layout": "circle"}, "neither row nor grid nor JSON"),
        ({"layout": "[" * 90_000}, "neither row nor grid nor JSON"),
        ({"layout": " " * 100_001}, "more than 100000 characters"),
        ({"layout": "[]"}, "the layout must be JSON of this form"),
        ({"layout": '{"products": 3}'}, "the layout must be JSON of this form"),
        ({"layout": spots({"left": 1, "top": 1}, colour="red")}, "the layout must be JSON of this form"),
        ({"layout": spots({"left": 1, "top": 1}, canvas="9x9")}, "give the size of the canvas once"),
        ({"layout": spots({"left": 1, "top": 1}), "canvas": None}, "give the size of the canvas once"),
        ({"layout": spots({"left": 1, "top": 1}, canvas=9), "canvas": None}, "give the size of the canvas once"),
        ({"layout": spots()}, "0 products were given for one scene: give 1 to 12"),
        ({"layout": spots({"left": 1})}, "product 1 of the layout needs left and top"),
        ({"layout": spots({"left": 1, "top": 1}, 7)}, "product 2 of the layout needs left and top"),
        ({"layout": spots({"left": -1, "top": 1})}, "left of product 1 of the layout must be a whole number"),
        ({"layout": spots({"left": True, "top": 1})}, "left of product 1 of the layout must be a whole number"),
        ({"layout": spots({"left": 1, "top": 1, "width": 0})}, "must be a whole number of pixels, 1 or more"),
        ({"layout": spots({"left": 1, "top": 10**7})}, "top of product 1 of the layout must be a whole number"),
        (
            {"layout": '{"products": [{"left": 1, "top": NaN}]}'},
            "top of product 1 of the layout must be a whole number",
        ),
        ({"layout": spots({"left": 1, "top": 1, "width": 4, "height": 4})}, "give one, the other follows"),
        ({"layout": spots({"left": 1, "top": 1}), "scale": 0.5}, "leave out scale"),
    ],
)
def test_what_is_not_understood_is_said_in_one_sentence(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build_layout(**{"canvas": "400x300"} | words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "sizes", "message"),
    [
        ({}, [(301, 10)], "takes 10 x 301 pixels, the canvas has 400 x 300: give a larger canvas, or a scale"),
        ({"layout": "row"}, [(50, 250)] * 2, "takes 512 x 50 pixels"),
        ({}, [], "0 products were given for one scene"),
        ({"layout": "grid"}, [(1, 1)] * 100, f"100 products were given for one scene: give 1 to {MAX_PRODUCTS}"),
        ({"layout": "row", "scale": 0.01}, [(9, 9)] * 3, "3 products leave no room between them at scale 0.01"),
        ({"layout": "row", "heights": [1, 2, 3]}, [(9, 9)] * 2, "3 heights were given for 2 products"),
        ({"place": "keep"}, [(9, 9)] * 2, "2 products were given, but one photograph is kept"),
        ({"place": "keep"}, [(300, 400)], "the photograph covers the canvas: nothing to generate"),
        ({"place": "keep"}, [(310, 400)], "takes 400 x 310 pixels"),
        ({"layout": spots({"left": 1, "top": 1})}, [(9, 9)] * 2, "the layout has 1 products, 2 were given"),
        ({"layout": spots({"left": 1, "top": 295})}, [(9, 9)], "which is not all on the canvas of 400 x 300"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(words: dict[str, object], sizes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build_layout(**{"canvas": "400x300"} | words).place(sizes)
    assert "\n" not in str(error.value)
