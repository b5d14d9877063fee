"""Reflections on the background, in both modes, by every way in; without them as if there were none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.files import save_lossless
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.provenance import read_provenance
from canvas.inference.scene.build import build_scene
from canvas.inference.served import ServedPipeline
from canvas.layout.spec import build_layout
from canvas.light.certificate import digest_image
from canvas.light.reflection import BASE_SHARE, REACH_SHARE
from canvas.light.shadow.casting import remove_shadow
from canvas.pins.images import encode_png
from canvas.pins.masks import compute_box
from canvas.verification import verify_file
from tests.canvas.inference.conftest import cutout, split
from tests.canvas.upscaler.test_model import build_moved

PROMPT = "a mug, forest"
ROW = build_layout("200x120", layout="row", place="center", scale=0.7)


def generate(pipeline: CanvasPipeline, product: object, **options: object) -> np.ndarray:
    output = pipeline(product, PROMPT, num_inference_steps=1, seed=0, **options)
    return np.array(output.images[0])


@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("shadow", [0.0, 0.8])
def test_none_is_the_default_and_one_lies_below_the_product_alone(shading_pipeline, mode: str, shadow: float) -> None:
    product, settings = cutout(90, 64), {"mode": mode, "shadow": shadow}
    plain = generate(shading_pipeline, product, **settings)
    assert np.array_equal(generate(shading_pipeline, product, reflection=0.0, **settings), plain)
    reflected = generate(shading_pipeline, product, reflection=1.0, **settings)
    _, top, _, bottom = compute_box(np.array(product)[..., 3] > 127)
    height, changed = bottom - top, (reflected != plain).any(-1)
    assert not changed[np.array(product)[..., 3] == 255].any()
    assert changed[bottom : bottom + 3].any()
    assert not changed[: int(bottom - BASE_SHARE * height)].any()
    assert not changed[int(np.ceil(bottom + REACH_SHARE * height)) :].any()


def test_no_network_is_needed(pipeline) -> None:
    product = cutout(64, 64)
    plain, reflected = (generate(pipeline, product, reflection=strength) for strength in (0.0, 1.0))
    assert (plain != reflected).any()


def test_it_comes_after_an_upscaler_and_lies_on_larger_canvases(pipeline) -> None:
    enlarging = CanvasPipeline(**pipeline.components | {"upscaler": build_moved()}, max_aspect=2.0)
    enlarging.set_progress_bar_config(disable=True)
    product, layout = cutout(150, 120), build_layout("240x256", place="center")
    for options in ({}, {"layout": layout}):
        plain, reflected = (
            generate(enlarging, product, upscale=2, reflection=strength, **options) for strength in (0.0, 1.0)
        )
        below = (reflected != plain).any(-1).nonzero()[0]
        assert len(below) > 0
        assert below.min() >= plain.shape[0] / 2


@pytest.mark.parametrize("way", ["alpha", "soft alpha", "mask", "segmenter"])
@pytest.mark.parametrize("shadow", [0.0, 0.7])
def test_soft_images_pass_and_give_up_their_shadow(shading_pipeline, way: str, shadow: float, tmp_path) -> None:
    product = cutout(64, 64, soft=way == "soft alpha")
    rgb, mask = split(product)
    original = product if "alpha" in way else rgb
    settings = {"mode": "soft", "reflection": 0.6, "num_inference_steps": 1, "seed": 0}
    settings |= {"mask": mask} if way == "mask" else {}
    bright, shaded = (shading_pipeline(original, PROMPT, shadow=strength, **settings) for strength in (0.0, shadow))
    original.save(tmp_path / "mug.png")
    save_lossless(shaded.images[0], tmp_path / "soft.png", None, shaded.certificates[0])
    assert verify_file(tmp_path / "soft.png", tmp_path / "mug.png").mode == "soft"
    record = shaded.certificates[0].shadow
    if record is None:
        assert shadow == 0
        return
    before = remove_shadow(np.array(shaded.images[0]), record.shadow, record.remainder, shaded.product.core)
    assert np.array_equal(before, np.array(bright.images[0]))
    assert record.before == digest_image(bright.images[0])


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_products_of_a_scene_never_reflect_on_each_other(shading_pipeline, mode: str) -> None:
    spots = [{"left": 20, "top": 10}, {"left": 35, "top": 55}]  # the second stands where the first is reflected
    layout = build_layout(layout=json.dumps({"canvas": "120x140", "products": spots}))
    products = [cutout(64, 64), cutout(60, 48)]
    plain, reflected = (
        generate(shading_pipeline, products, layout=layout, mode=mode, reflection=strength) for strength in (0.0, 1.0)
    )
    scene = build_scene(products, layout=layout)
    assert np.array_equal(reflected[scene.owners >= 0], plain[scene.owners >= 0])
    changed = (reflected != plain).any(-1)
    for box in scene.boxes:
        assert changed[box.top + box.height - 2 : box.top + box.height + 6, box.left : box.left + box.width].any()


def test_products_that_float_or_stand_on_the_last_row_have_none(pipeline) -> None:
    def place(top: int, *floats: bool) -> str:
        spots = [{"left": left, "top": top, "floats": each} for left, each in zip((10, 220), floats, strict=True)]
        return json.dumps({"canvas": "300x100", "products": spots})

    products = [cutout(60, 60), cutout(60, 60)]
    height = build_scene(products, layout=build_layout(layout=place(20, False, False))).boxes[0].height
    plain, none, second = (
        generate(pipeline, products, layout=build_layout(layout=place(20, *floats)), reflection=strength)
        for floats, strength in (((False, False), 0.0), ((True, True), 1.0), ((True, False), 1.0))
    )
    assert np.array_equal(none, plain)
    assert np.array_equal(second[:, :150], plain[:, :150])
    assert (second[:, 150:] != plain[:, 150:]).any()
    lowest = build_layout(layout=place(100 - height, False, False))
    plain, reflected = (generate(pipeline, products, layout=lowest, reflection=strength) for strength in (0.0, 1.0))
    assert np.array_equal(reflected, plain)


def test_what_cannot_be_is_refused_in_a_sentence(pipeline) -> None:
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"reflection is .*: it must be from 0, no reflection, to 1, the whole of"):
            generate(pipeline, cutout(64, 64), reflection=strength)
    photograph = split(cutout(64, 64))[0]
    with pytest.raises(ValueError, match="a photograph that is kept has its own reflections"):
        generate(pipeline, photograph, layout=build_layout("90x160", place="keep"), reflection=0.5)


def test_the_command_takes_it_and_verify_believes_the_files(shading_pipeline, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shading_pipeline.save_pretrained("model")
    cutout(64, 64).save("mug.png")
    cutout(40, 60).save("lamp.png")
    command = ["generate", "--model", "model", "--product", "mug.png", "--prompt", PROMPT, "--steps", "1"]
    command += ["--candidates", "1", "--reflection", "0.5"]
    for mode in ("soft", "hard"):
        assert main([*command, "--mode", mode, "--shadow", "0.8", "--out", mode]) == 0
        assert main(["verify", f"{mode}/mug-0.png", "--product", "mug.png"]) == 0
        stated = read_provenance(Path(f"{mode}/mug-0.png").read_bytes())
        assert stated is not None
        assert (stated["shadow"], stated["reflection"]) == (0.8, 0.5)
        row = ["--product", "lamp.png", "--canvas", "200x100", "--layout", "row", "--mode", mode, "--out", mode]
        assert main([*command, *row]) == 0
        assert main(["verify", f"{mode}/mug+lamp-0.png", "--product", "mug.png", "--product", "lamp.png"]) == 0
    capsys.readouterr()
    assert main([*command, "--reflection", "2", "--out", "none"]) == 1
    assert "--reflection is 2.0: it must be from 0, no reflection, to 1" in capsys.readouterr().err
    split(cutout(64, 64))[0].save("photograph.png")
    kept = ["--product", "photograph.png", "--canvas", "90x160", "--place", "keep", "--reflection", "0.5"]
    assert main(["generate", "--model", "model", "--prompt", PROMPT, *kept, "--out", "none"]) == 1
    assert "a photograph that is kept has its own reflections" in capsys.readouterr().err
    assert not Path("none").exists()


def test_a_server_answers_with_the_reflection(pipeline, tmp_path: Path) -> None:
    product = cutout(64, 56)
    product.save(tmp_path / "mug.png")
    rows = pd.DataFrame({"product": [encode_png(product)], "prompt": [PROMPT], "seed": [1]})
    served, images = ServedPipeline(pipeline), []
    for strength in (0.0, 0.7):
        made = served.predict(rows, {"steps": 1, "reflection": strength})["image"][0]
        (tmp_path / "made.png").write_bytes(made)
        assert verify_file(tmp_path / "made.png", tmp_path / "mug.png").mode == "hard"
        stated = read_provenance(made)
        assert stated is not None
        assert stated.get("reflection", 0.0) == strength
        images.append(np.array(Image.open(tmp_path / "made.png")))
    assert (images[0] != images[1]).any()
