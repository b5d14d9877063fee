from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canvas.styles.pins import read_labelled_products, read_style_pins
from tests.components.mugs import write_catalogue
from tests.components.sidecars import write_sidecars

HELD_OUT = ("unseen_product", "unseen_view", "unseen_both")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("pins")
    write_catalogue(folder)
    write_sidecars(folder)
    return folder / "pins", folder / "kept", folder / "truth"


def test_pins_with_a_product_by_scene(tables):
    captions = tables[0].with_name("captions")
    by_scene = read_style_pins(*tables, captions, splits=("train",), scenes=9, each=2)
    assert set(by_scene) == {"forest", "lobby"}
    for scene, pins in by_scene.items():
        assert len(pins) == 2
        assert all(pin.scene == scene and scene in pin.background and pin.category == "Mugs" for pin in pins)
    assert set(read_style_pins(*tables, captions, splits=("train",), scenes=1, each=2)) == {"forest"}
    held_out = read_style_pins(*tables, captions, splits=HELD_OUT, scenes=9, each=9)
    assert {pin.pin_id for pins in held_out.values() for pin in pins} == {"p13", "p14", "p16"}
    assert read_style_pins(*tables, captions, splits=("nothing",), scenes=9, each=1) == {}


def test_where_no_caption_names_a_background_the_scene_does(tables, tmp_path):
    table = pq.read_table(tables[0].with_name("captions"))
    mumbled = pa.array(["acacac7777"] * len(table), pa.string())
    (tmp_path / "captions").mkdir()
    pq.write_table(
        table.set_column(table.schema.get_field_index("caption"), "caption", mumbled),
        tmp_path / "captions" / "part-0.parquet",
    )
    by_scene = read_style_pins(*tables, tmp_path / "captions", splits=("train",), scenes=9, each=2)
    assert set(by_scene) == {"forest", "lobby"}
    assert all(pin.background == scene for scene, pins in by_scene.items() for pin in pins)
    assert all(pin.category == "Mugs" for pins in by_scene.values() for pin in pins)


def test_products_with_and_without_themselves(tables):
    products = read_labelled_products(*tables, splits=("train",), side=16, count=5)
    assert len(products.views) == len(products.categories) == len(products.backgrounds) == 5
    assert products.masks.any(axis=(1, 2)).all()
    changed = np.abs(products.views.astype(int) - products.backgrounds).max(axis=-1)
    assert changed[products.masks].mean() > 60
    assert changed[~products.masks].mean() < 15  # what scaling carries over the edge
    nothing = read_labelled_products(*tables, splits=("nothing",), side=16, count=5)
    assert nothing.views.shape == (0, 16, 16, 3)
    assert nothing.masks.shape == (0, 16, 16)
