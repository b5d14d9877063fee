"""Mode soft of several products: each in the scene's light, certified, and proved from the files alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.files import save_certificate, save_lossless
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.scene.build import build_scene
from canvas.inference.served import ServedPipeline
from canvas.layout.spec import Layout, build_layout
from canvas.light.certificate import SUFFIX
from canvas.light.laws import LIMITS
from canvas.pins.images import encode_png
from canvas.verification import BrokenLawError, verify_file
from tests.canvas.inference.conftest import cutout, split
from tests.canvas.light.shadow.test_model import build_moved as build_moved_shadow
from tests.canvas.light.test_model import build_moved

PROMPT = "a mug, forest"
ROW = build_layout("160x90", layout="row", scale=0.7)
OVERLAP = build_layout(
    layout=json.dumps({"canvas": "120x120", "products": [{"left": 10, "top": 10}, {"left": 30, "top": 30}]})
)


@pytest.fixture(scope="module")
def lighting(segmenting_pipeline: CanvasPipeline) -> CanvasPipeline:
    """A pipeline with a segmenter, a light network whose gains are far from lawful, and a shadow network."""
    parts = segmenting_pipeline.components | {"light": build_moved(3.0), "shadow": build_moved_shadow(3.0)}
    made = CanvasPipeline(**parts, max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cut-outs."""
    cutout(64, 64).save(tmp_path / "mug.png")
    cutout(40, 60, soft=True).save(tmp_path / "lamp.png")
    return tmp_path


def write_soft(lighting: CanvasPipeline, folder: Path, layout: Layout, names: tuple[str, ...], **given: Any) -> Path:
    """Write soft.png of these products, and its certificate beside it."""
    products = [Image.open(folder / name) for name in names]
    made = lighting(products, PROMPT, mode="soft", layout=layout, num_inference_steps=1, seed=0, **given)
    save_lossless(made.images[0], folder / "soft.png", None, made.certificates[0])
    save_certificate(made.certificates[0], folder / "soft.png")
    return folder / "soft.png"


def edit_certificate(folder: Path, change: Any) -> None:
    path = folder / ("soft" + SUFFIX)
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (ROW, ("mug.png", "lamp.png")),
        (OVERLAP, ("mug.png", "lamp.png")),
        (build_layout("160x90", layout="grid", heights=[30, 12, 9]), ("mug.png", "lamp.png", "mug.png")),
        (build_layout("90x160", place="bottom"), ("mug.png",)),
        (build_layout("300x80"), ("mug.png",)),
    ],
)
def test_each_product_passes_from_the_files_alone(lighting, folder, layout: Layout, names) -> None:
    image = write_soft(lighting, folder, layout, names)
    verification = verify_file(image, [folder / name for name in names])
    assert verification.mode == "soft"
    assert verification.numbers == tuple(number for number in range(1, len(names) + 1) for _ in LIMITS)
    residuals = [check.measured for check in verification.checks if check.law == "residual"]
    assert residuals == [0] * len(names)
    scene = build_scene([Image.open(folder / name) for name in names], layout=layout)
    pixels = np.array(Image.open(image))
    for number in range(len(names)):
        core = scene.owners == number
        assert (pixels[core] != scene.product.pixels[core]).any()  # each took on some light
    lines = verification.describe()
    assert len(lines) == 1 + len(names) * len(LIMITS)
    assert f"product {len(names)}, residual:" in lines[-1]


def test_only_products_and_their_edges_change(lighting, folder) -> None:
    products = [Image.open(folder / name) for name in ("mug.png", "lamp.png")]
    hard, soft = (
        np.array(lighting(products, PROMPT, mode=mode, layout=ROW, num_inference_steps=1, seed=0).images[0])
        for mode in ("hard", "soft")
    )
    changed, scene = (hard != soft).any(-1), build_scene(products, layout=ROW)
    assert not changed[scene.parts == -1].any()
    assert all(changed[scene.parts == number].any() for number in range(2))


def test_products_cast_their_shadows_and_are_certified_still(lighting, folder) -> None:
    products = [Image.open(folder / name) for name in ("mug.png", "lamp.png")]
    plain, shaded = (
        np.array(Image.open(write_soft(lighting, folder, ROW, ("mug.png", "lamp.png"), shadow=strength)))
        for strength in (0.0, 1.0)
    )
    assert verify_file(folder / "soft.png", [folder / "mug.png", folder / "lamp.png"]).mode == "soft"
    scene = build_scene(products, layout=ROW)
    assert np.array_equal(plain[scene.owners >= 0], shaded[scene.owners >= 0])
    outside = scene.parts < 0
    assert (shaded[outside] <= plain[outside]).all()
    assert (shaded[outside] < plain[outside]).any()


def test_products_that_a_segmenter_or_masks_cut_out(lighting, folder) -> None:
    rgb, mask = split(cutout(64, 64))
    rgb.save(folder / "rgb.png")
    mask.save(folder / "mask.png")
    layout = build_layout("300x200", layout="row")
    image = write_soft(lighting, folder, layout, ("rgb.png", "lamp.png"))
    assert verify_file(image, [folder / "rgb.png", folder / "lamp.png"]).core_source == "segmenter and alpha channel"
    products = [folder / "lamp.png", folder / "rgb.png"]
    image = write_soft(lighting, folder, layout, ("lamp.png", "rgb.png"), mask=[None, mask])
    mixed = verify_file(image, products, mask=[Path("-"), folder / "mask.png"])
    assert mixed.core_source == "alpha channel and mask"
    with pytest.raises(ValueError, match="1 masks were given for 2 products: give one each, - for a cut-out, or none"):
        verify_file(image, products, mask=[folder / "mask.png"])
    image = write_soft(lighting, folder, layout, ("rgb.png", "rgb.png"), mask=[mask, mask])
    products = [folder / "rgb.png"] * 2
    assert verify_file(image, products, mask=[folder / "mask.png"] * 2).core_source == "mask"
    with pytest.raises(ValueError, match="product 1 was cut out by a mask: give it with --mask"):
        verify_file(image, products)


def test_a_changed_pixel_of_any_product_breaks_its_law(lighting, folder) -> None:
    path = write_soft(lighting, folder, ROW, ("mug.png", "lamp.png"))
    products = [folder / "mug.png", folder / "lamp.png"]
    scene = build_scene([Image.open(product) for product in products], layout=ROW)
    original = np.array(Image.open(path))
    for number in range(2):
        changed = original.copy()
        row, column = np.argwhere(scene.owners == number)[7]
        changed[row, column, 0] ^= 8
        Image.fromarray(changed).save(path)
        with pytest.raises(
            BrokenLawError, match=f"law residual is broken: product {number + 1}: a pixel of the product"
        ):
            verify_file(path, products)
    changed = original.copy()
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(path)
    with pytest.raises(BrokenLawError, match="law image is broken"):
        verify_file(path, products)


def raise_gain(stated: dict[str, Any]) -> None:
    stated["products"][1]["log_gain"][3][3] = [1.0, 1.0, 1.0]


def raise_limit(stated: dict[str, Any]) -> None:
    stated["products"][1]["limits"]["gain"] = 9.0


def move_products(stated: dict[str, Any]) -> None:
    stated["layout"]["scale"] = 0.6


def widen_canvas(stated: dict[str, Any]) -> None:
    stated["layout"]["canvas"] = "170x90"


def drop_product(stated: dict[str, Any]) -> None:
    del stated["products"][1]


def break_product(stated: dict[str, Any]) -> None:
    stated["products"][1] = "none"


def break_layout(stated: dict[str, Any]) -> None:
    stated["layout"] = {"canvas": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (raise_gain, "law gain is broken: product 2: the largest gain"),
        (raise_limit, "law limits is broken"),
        (move_products, "law residual is broken"),
        (widen_canvas, r"law placement is broken: the image has 160 x 90 pixels, its layout 170 x 90"),
        (drop_product, "is of 1 products, 2 product images were given: give each"),
        (break_product, r"product 2, is no certificate"),
        (break_layout, "what the image says of its layout is not understood"),
        (lambda stated: stated.pop("products"), "layout or products are missing"),
    ],
)
def test_nothing_that_a_certificate_says_is_believed(lighting, folder, change, message: str) -> None:
    path = write_soft(lighting, folder, ROW, ("mug.png", "lamp.png"))
    edit_certificate(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        verify_file(path, [folder / "mug.png", folder / "lamp.png"])
    assert "\n" not in str(error.value)


def test_other_originals_and_orders_are_refused(lighting, folder) -> None:
    path = write_soft(lighting, folder, ROW, ("mug.png", "lamp.png"))
    with pytest.raises(BrokenLawError, match="the certificate of product 1 was made for another product image"):
        verify_file(path, [folder / "lamp.png", folder / "mug.png"])


def test_the_command_and_a_server_do_as_well(lighting, folder, monkeypatch, capsys) -> None:
    lighting.save_pretrained(folder / "model")
    monkeypatch.chdir(folder)
    products = ["--product", "mug.png", "--product", "lamp.png"]
    generate = ["generate", "--model", "model", *products, "--prompt", PROMPT, "--steps", "1", "--candidates", "1"]
    canvas = ["--canvas", "160x90", "--layout", "row"]
    assert main([*generate, *canvas, "--mode", "soft", "--out", "out"]) == 0
    assert main(["verify", "out/mug+lamp-0.png", *products]) == 0
    (folder / "out" / ("mug+lamp-0" + SUFFIX)).unlink()
    assert main(["verify", "out/mug+lamp-0.png", *products]) == 0  # the PNG's metadata hold it, too
    assert "pass (soft)" in capsys.readouterr().out
    keep = ["--canvas", "90x160", "--place", "keep", "--mode", "soft", "--out", "kept"]
    cutout(64, 64).convert("RGB").save("photo.png")
    assert main(["generate", "--model", "model", "--product", "photo.png", "--prompt", PROMPT, *keep]) == 1
    assert "a photograph that is kept stays in its own light" in capsys.readouterr().err
    given = [Image.open(name) for name in ("mug.png", "lamp.png")]
    row = {"product": encode_png(given[0]), "more_products": [encode_png(given[1])], "prompt": PROMPT, "seed": 1}
    options = {"steps": 1, "mode": "soft", "canvas": "160x90", "layout": "row"}
    made = ServedPipeline(lighting).predict(pd.DataFrame([row]), options)["image"][0]
    Path("served.png").write_bytes(made)
    assert Image.open(io.BytesIO(made)).size == (160, 90)
    assert verify_file(Path("served.png"), [Path("mug.png"), Path("lamp.png")]).mode == "soft"
