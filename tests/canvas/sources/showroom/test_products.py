from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from canvas.sources.showroom.products import CATALOGUE, HELD_OUT_PRODUCTS, Product, load_products
from canvas.sources.showroom.spec import SCENES
from canvas.sources.showroom.texts import SENTENCES

REAL = Path("data/showroom")


def test_every_category_holds_out_one_product(products: tuple[Product, ...]) -> None:
    assert len(products) == 31
    assert sum(len(product.cutouts) for product in products) == 38
    held_out = Counter(product.category for product in products if product.held_out)
    assert held_out == dict.fromkeys({product.category for product in products}, 1)
    assert CATALOGUE.keys() > HELD_OUT_PRODUCTS


def test_files_and_names_are_not_shared(products: tuple[Product, ...]) -> None:
    files = [sheet.file for sheets in CATALOGUE.values() for sheet in sheets]
    assert len(set(files)) == len(files)
    assert len({product.name for product in products}) == len(products)


def test_the_matte_leaves_the_baked_shadow_out(products: tuple[Product, ...]) -> None:
    cutout = products[0].cutouts[0]
    assert cutout.soft.shape == cutout.matte.shape == cutout.color.shape[:2]
    x0, y0, x1, y1 = cutout.box
    assert cutout.matte[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 0.99
    assert cutout.matte[:, x1 + 3 :].max() == 0
    assert 0.2 < cutout.soft[-3, -3] < 0.5  # the shadow


def test_a_missing_file_is_named(showroom_files: Path, tmp_path: Path) -> None:
    shutil.copytree(showroom_files, tmp_path / "showroom")
    (tmp_path / "showroom/products/saleordemoproduct_wine-red.png").unlink()
    with pytest.raises(ValueError, match=r"wine-red\.png is missing: build the demo data with `make data`"):
        load_products(tmp_path / "showroom")


def test_scenes_are_named_in_the_sentence() -> None:
    assert len({scene.words for scene in SCENES}) == len(SCENES) == 10
    for scene in SCENES:
        assert scene.words in scene.place
        assert all(scene.words.split()[0] in sentence for sentence in SENTENCES[scene.words])


@pytest.mark.skipif(not REAL.exists(), reason="needs the package files: make data")
def test_real_cutouts_are_whole() -> None:
    for product in load_products(REAL):
        for cutout in product.cutouts:
            x0, y0, x1, y1 = cutout.box
            filled = float((cutout.matte[y0:y1, x0:x1] > 0.5).mean())
            assert 0.5 < filled < 1, cutout.source.file  # no shadow widens the box, no print is a hole
            assert (cutout.matte <= cutout.soft + 0.01).all(), cutout.source.file
            rows = (cutout.matte[y0:y1, x0:x1] > 0.5).any(1)
            assert np.asarray(rows).mean() > 0.99, cutout.source.file  # one piece from top to bottom
