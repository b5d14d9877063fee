import pyarrow as pa
import pytest

from canvas.captioner.captions import load_captioned_pins
from canvas.pins import tables
from canvas.pins.captions import (
    fit_caption,
    format_caption,
    iterate_texts,
    parse_caption,
    read_backgrounds,
    select_owner_caption,
)
from canvas.sources.showroom.texts import compose_true_caption


@pytest.mark.parametrize(
    ("product", "background", "caption"),
    [
        ("Red T-shirt", "in a forest", "red t-shirt, in a forest"),
        (None, "in a forest", "in a forest"),
        ("Mug, blue ", "on a  white background", "mug blue, on a white background"),
    ],
)
def test_captions_part_as_they_were_joined(product, background, caption):
    assert format_caption(product, background) == caption
    parts = parse_caption(caption)
    assert format_caption(*parts) == caption
    assert (parts[0] is None) == (product is None)


@pytest.mark.parametrize(
    ("product", "background", "caption"),
    [
        ("Red T-shirt", "in a forest", "red t-shirt, in a forest"),
        ("Red T-shirt with a very long name", "in a forest", "red t-shirt with a, in a forest"),
        ("x" * 100_000, "in a forest", "x" * 18 + ", in a forest"),
        ("Mug](http://example.org/x) and more", "in a forest", "mug](http://exampl, in a forest"),
        (None, "in a forest", "in a forest"),
        ("Mug", "in a forest of " + "firs " * 1000, "in a forest of firs firs firs"),
        ("Mug", "y" * 100_000, "y" * 31),
    ],
)
def test_what_has_no_room_is_cut_off_the_products_name(product, background, caption):
    assert fit_caption(product, background, lambda text: text[31:]) == caption


@pytest.mark.parametrize(
    ("alt", "kind", "scene", "caption"),
    [
        (
            "White Polo Shirt in the desert at dawn",
            "in_scene",
            "desert at dawn",
            "white polo shirt, in the desert at dawn",
        ),
        ("Black Hoodie on a plain background", "on_white", None, "black hoodie, on a white background"),
        ("View of a forest", "scene", "forest", "in a forest"),
        ("Apple Juice on a city square", "in_scene", "city square", "apple juice, on a city square"),
    ],
)
def test_the_caption_of_a_showroom_pin(alt, kind, scene, caption):
    assert compose_true_caption({"alt_text": alt}, {"kind": kind, "scene": scene}) == caption


def test_empty_texts_are_left_out():
    pin = {"title": " A  mug\n", "description": "", "alt_text": None, "generated": "mug, in a lobby"}
    assert list(iterate_texts(pin)) == [("title", "A mug"), ("generated", "mug, in a lobby")]


def test_alt_text_before_title():
    assert select_owner_caption({"alt_text": " ", "title": "A mug"}) == "A mug"
    assert select_owner_caption({"alt_text": "Mug on desk", "title": "A mug"}) == "Mug on desk"
    assert select_owner_caption({"alt_text": None, "title": ""}) is None


def test_backgrounds_of_generated_captions_and_those_of_products_alone(tmp_path):
    captions = [
        ("a", "generated", "red mug, in a lobby"),
        ("a", "title", "red mug, in a cave"),
        ("b", "generated", "in a forest"),
        ("c", "generated", "red mug,"),
        ("d", "title", "red mug, in a cave"),
        ("e", "generated", "red mug, in a tent"),
    ]
    rows = [dict(zip(tables.CAPTIONS.names, row, strict=True)) for row in captions]
    tables.write(tmp_path / "captions", [pa.Table.from_pylist(rows, tables.CAPTIONS)], tables.CAPTIONS)
    assert read_backgrounds(tmp_path / "captions", "abcd") == {"a": "in a lobby", "b": "in a forest"}
    assert read_backgrounds(tmp_path / "captions", "abcd", of_products=True) == {"a": "in a lobby"}


def test_words_of_a_catalogue_without_truth(tmp_path):
    rows = [
        {"pin_id": "a", "title": "Mug", "alt_text": None, "category": "Mugs"},
        {"pin_id": "b", "title": "", "alt_text": "", "category": None},
        {"pin_id": "c", "title": "Lamp", "alt_text": "Tall lamp", "category": "Lamps"},
    ]
    blank = dict.fromkeys(tables.PINS.names)
    tables.write(tmp_path / "pins", [pa.Table.from_pylist([blank | row for row in rows], tables.PINS)], tables.PINS)
    tables.write(tmp_path / "truth", [], tables.TRUTH)
    words = load_captioned_pins(tmp_path / "pins", tmp_path / "truth", {"a": "train", "b": "train"})
    assert list(words) == ["a"]
    assert words["a"].caption == "Mug"
    assert not words["a"].has_truth
