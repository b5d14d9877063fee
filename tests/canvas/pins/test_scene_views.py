from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.products import load_product_pins
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
    found = products_of(mugs)
    assert [pin.pin_id for pin in found] == [f"p{place:02d}" for place in range(12) if place % 3]
    for pin in found:
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


def test_the_title_names_a_product_without_a_caption(mugs, tmp_path):
    for name in ("kept", "masks", "pins"):
        (tmp_path / name).symlink_to(mugs / name)
    tables.write(tmp_path / "captions", [], tables.CAPTIONS)
    assert products_of(tmp_path, count=1)[0].product == "Title 1"


def test_other_splits_stand_for_one_without_products(mugs):
    notes = Notes()
    found = products_of(mugs, splits=("unseen_both",), notes=notes)
    assert {pin.pin_id for pin in found} == {"p13", "p14", "p16"}
    (note,) = notes.to_metrics()["notes"]
    assert note == "no_usable_pin_of_unseen_both_so_those_of_unseen_product_and_unseen_view_were_taken"


def test_no_product_to_show(mugs, tmp_path):
    for name in ("kept", "pins", "captions"):
        (tmp_path / name).symlink_to(mugs / name)
    tables.write(tmp_path / "masks", [], tables.MASKS)
    with pytest.raises(ValueError, match="no kept pin has an accepted mask"):
        products_of(tmp_path)
