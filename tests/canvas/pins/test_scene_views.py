from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.products import load_product_pins, read_backdrops, select_title
from canvas.pins.scene_views import crop_center_square, list_scenes, load_scene_views
from tests.components.mugs import write_catalogue
from tests.components.sidecars import write_sidecars


@pytest.fixture(scope="module")
def mugs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_sidecars(folder)
    return folder


def views_of(folder: Path, **changes):
    options = {"splits": ("train",), "side": 16, "count": 99, "emptied": False}
    return load_scene_views(folder / "pins", folder / "kept", folder / "truth", **(options | changes))


def test_the_middle_square():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    assert crop_center_square(image, 10).shape == (10, 10, 3)
    assert crop_center_square(image, 10)[:, 1:-1].min() > 250  # white, but for ringing at its edge


def test_pins_and_the_scenes_before_the_product_came(mugs):
    assert list_scenes(mugs / "truth") == ["forest", "lobby"]
    views, scenes = views_of(mugs)
    empty, same = views_of(mugs, emptied=True)
    assert views.shape == empty.shape == (12, 16, 16, 3)
    assert scenes == same == ["forest", "lobby"] * 6
    red = (views[..., 0].astype(int) - views[..., 1] > 100).any(axis=(1, 2))
    assert red.tolist() == [place % 3 > 0 for place in range(12)]
    assert not (empty[..., 0].astype(int) - empty[..., 1] > 100).any()


def test_spread_evenly_and_no_more_than_there_are(mugs):
    assert views_of(mugs, count=3)[1] == ["forest", "forest", "lobby"]  # pins 0, 6, 11
    views, scenes = views_of(mugs, splits=("unseen_both",))
    assert views.shape == (0, 16, 16, 3)
    assert scenes == []


def products_of(folder: Path, **changes):
    sources = (folder / name for name in ("pins", "kept", "masks", "captions"))
    return load_product_pins(*sources, **({"splits": ("train",), "count": 99} | changes))


def test_products_with_their_masks_and_names(mugs):
    pins = products_of(mugs, names="caption")
    assert [pin.pin_id for pin in pins] == [f"p{place:02d}" for place in range(12) if place % 3]
    for pin in pins:
        assert pin.product == "red mug"
        assert pin.mask.shape == (pin.image.height, pin.image.width)
        assert (np.array(pin.image)[pin.mask] == (220, 40, 40)).all()
    assert len(products_of(mugs, count=2)) == 2


def test_different_products_first(mugs, tmp_path):
    for name in ("kept", "masks", "captions"):
        (tmp_path / name).symlink_to(mugs / name)
    table = tables.read(mugs / "pins")
    rows = [row | {"product_id": "b" if row["pin_id"] == "p10" else "a"} for row in table.to_pylist()]
    tables.write(tmp_path / "pins", [type(table).from_pylist(rows, tables.PINS)], tables.PINS)
    assert [pin.pin_id for pin in products_of(tmp_path, count=3)] == ["p01", "p10", "p02"]


def test_the_title_names_a_product_and_the_caption_one_without(mugs):
    assert {pin.pin_id: pin.product for pin in products_of(mugs)} == {
        f"p{place:02d}": "red mug" if place == 4 else f"Title {place}" for place in range(12) if place % 3
    }


@pytest.mark.parametrize("names", ["title", "caption"])
def test_without_a_caption_the_title_names_a_product_and_without_both_it_is_one(mugs, tmp_path, names):
    for name in ("kept", "masks", "pins"):
        (tmp_path / name).symlink_to(mugs / name)
    tables.write(tmp_path / "captions", [], tables.CAPTIONS)
    products = {pin.pin_id: pin.product for pin in products_of(tmp_path, names=names)}
    assert (products["p01"], products["p04"]) == ("Title 1", "product")


@pytest.mark.parametrize(
    ("own", "titles", "name"),
    [
        ("Red Mug", ["Red Mug", "Red Mug"], "Red Mug"),
        (
            "Style idea: red mug in a lobby",
            ["Red  Mug", "Style idea: red mug in a lobby", "New in: Red Mug"],
            "Red Mug",
        ),
        ("Tea at grandma's", ["Red Mug", "Tea at grandma's", ""], "Tea at grandma's"),
        ("", ["Red Mug", "", ""], "Red Mug"),
        ("Red Mug", [], "Red Mug"),
        ("", [], ""),
    ],
)
def test_the_name_is_what_most_titles_of_a_product_hold(own, titles, name):
    assert select_title(own, titles) == name


def test_products_are_pasted_on_grey_where_every_pin_shows_one(mugs):
    notes = Notes()
    everything = tables.read_kept_splits(mugs / "pins", mugs / "kept")
    assert len(read_backdrops(mugs / "pins", mugs / "kept", ["p01"], notes)) == len(everything) - 1
    assert notes.to_metrics() == {}
    (plain,) = read_backdrops(mugs / "pins", mugs / "kept", everything, notes)
    assert plain.getextrema() == ((128, 128),) * 3
    assert notes.to_metrics() == {
        "notes": ["every kept pin is a product to be shown, so products were pasted on plain grey"]
    }


def test_other_splits_stand_for_one_without_products(mugs):
    notes = Notes()
    pins = products_of(mugs, splits=("unseen_both",), notes=notes)
    assert {pin.pin_id for pin in pins} == {"p13", "p14", "p16"}
    (note,) = notes.to_metrics()["notes"]
    assert note == "no usable pin of unseen_both, so those of unseen_product and unseen_view were taken"


def test_no_product_to_show(mugs, tmp_path):
    for name in ("kept", "pins", "captions"):
        (tmp_path / name).symlink_to(mugs / name)
    tables.write(tmp_path / "masks", [], tables.MASKS)
    with pytest.raises(ValueError, match="no kept pin has an accepted mask"):
        products_of(tmp_path)
