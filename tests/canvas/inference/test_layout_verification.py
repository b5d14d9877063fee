"""`verify` of images with a layout, which they state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.files import save_lossless
from canvas.inference.product import composite_pixels
from canvas.inference.provenance import describe_generation
from canvas.inference.scene.build import build_scene
from canvas.layout.spec import Layout, build_layout, rebuild_layout
from canvas.verification import BrokenLawError, verify_file
from tests.canvas.inference.conftest import cutout

ROW = build_layout("160x90", layout="row", scale=0.7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cut-outs and a photograph."""
    cutout(64, 64).save(tmp_path / "mug.png")
    cutout(40, 60, soft=True).save(tmp_path / "lamp.png")
    cutout(64, 64).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path


def write_image(folder: Path, names: list[str], layout: Layout) -> Path:
    """Write a scene before noise, as `generate` would write it."""
    scene = build_scene([Image.open(folder / name) for name in names], layout=layout)
    background = np.random.default_rng(0).integers(0, 256, (*scene.product.size, 3), np.uint8)
    stated = describe_generation(None, seed=0, seed_by_product=False, prompt=None, layout=layout.words)
    path = folder / "made.png"
    save_lossless(Image.fromarray(composite_pixels(background, scene.product)), path, stated)
    return path


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["mug.png"], build_layout("90x160", place="bottom")),
        (["mug.png", "lamp.png"], ROW),
        (["mug.png", "lamp.png"], build_layout("160x90", layout="grid", heights=[30, 12])),
        (["photo.png"], build_layout("64x100", place="keep-top")),
        (
            ["mug.png", "lamp.png"],
            build_layout(
                layout=json.dumps({"canvas": "99x99", "products": [{"left": 0, "top": 9}, {"left": 30, "top": 30}]})
            ),
        ),
    ],
)
def test_each_product_is_found_where_the_layout_says(folder: Path, names: list[str], layout: Layout) -> None:
    path = write_image(folder, names, layout)
    verification = verify_file(path, [folder / name for name in names])
    assert verification.mode == "hard"
    assert verification.core_pixels > 100
    products = [word for name in names for word in ("--product", str(folder / name))]
    assert main(["verify", str(path), *products]) == 0


def test_a_changed_pixel_of_any_product_is_found(folder: Path) -> None:
    path = write_image(folder, ["mug.png", "lamp.png"], ROW)
    scene = build_scene([Image.open(folder / name) for name in ("mug.png", "lamp.png")], layout=ROW)
    with Image.open(path) as image:
        image.load()
    stated = describe_generation(None, seed=0, seed_by_product=False, prompt=None, layout=ROW.words)
    for number in range(2):
        row, column = np.argwhere(scene.owners == number)[5].tolist()
        changed = image.copy()
        red, green, blue = changed.getpixel((column, row))
        changed.putpixel((column, row), (red, green, blue ^ 1))
        save_lossless(changed, path, stated)
        with pytest.raises(BrokenLawError, match="1 pixels of the product's core are not the original's"):
            verify_file(path, [folder / "mug.png", folder / "lamp.png"])


def test_other_products_and_orders_break_the_law(folder: Path) -> None:
    path = write_image(folder, ["mug.png", "lamp.png"], ROW)
    with pytest.raises(BrokenLawError, match="law exact"):
        verify_file(path, [folder / "lamp.png", folder / "mug.png"])
    small = write_image(folder, ["mug.png"], build_layout("60x60"))
    stated = describe_generation(None, seed=0, seed_by_product=False, prompt=None, layout={"canvas": "61x60"})
    save_lossless(Image.open(small), small, stated)
    with pytest.raises(BrokenLawError, match="law placement"):
        verify_file(small, folder / "mug.png")


def test_several_products_without_a_layout_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"2 products were given, but .* does not say how they stand in it"):
        verify_file(folder / "photo.png", [folder / "mug.png", folder / "lamp.png"])


@pytest.mark.parametrize(
    "words",
    [[], "row", {"canvas": 3}, {"canvas": "9x9", "size": 1}, {"scale": "1"}, {"heights": ["1"]}, {"heights": 1}, {}],
)
def test_what_an_image_says_of_its_layout_is_not_believed(words: object) -> None:
    with pytest.raises(ValueError, match=r"is not understood|needs a canvas"):
        rebuild_layout(words)
