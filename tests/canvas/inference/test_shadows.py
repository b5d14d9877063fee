"""Shadows on the background, in both modes, by every way in; without them as if there were none."""

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
from canvas.inference.served import ServedPipeline
from canvas.layout.spec import build_layout
from canvas.light.certificate import digest_image
from canvas.light.shadow.casting import MAX_OPACITY, remove_shadow
from canvas.pins.images import encode_png
from canvas.verification import verify_file
from tests.canvas.inference.conftest import cutout, split
from tests.canvas.light.shadow.test_model import build_broken

PROMPT = "a mug, forest"


@pytest.fixture(scope="module")
def folder(shading_pipeline: CanvasPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/ with a shadow network; mug.png."""
    path = tmp_path_factory.mktemp("shadow")
    shading_pipeline.save_pretrained(path / "model")
    cutout(64, 64).save(path / "mug.png")
    return path


def generate(pipeline: CanvasPipeline, product: object, **options: object) -> np.ndarray:
    output = pipeline(product, PROMPT, num_inference_steps=1, seed=0, **options)
    return np.array(output.images[0])


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_no_shadow_is_the_default_and_changes_nothing(shading_pipeline, mode: str) -> None:
    product = cutout(64, 64)
    plain = generate(shading_pipeline, product, mode=mode)
    assert np.array_equal(generate(shading_pipeline, product, mode=mode, shadow=0.0), plain)
    shaded = generate(shading_pipeline, product, mode=mode, shadow=1.0)
    core = np.array(product)[..., 3] == 255
    assert np.array_equal(shaded[core], plain[core])
    assert (shaded <= plain).all()
    assert (shaded + 1.0 >= plain * (1 - MAX_OPACITY)).all()
    half = generate(shading_pipeline, product, mode=mode, shadow=0.5)
    assert shaded.mean() < half.mean() < plain.mean()


@pytest.mark.parametrize(
    ("size", "way"),
    [
        *[(size, way) for size in ((64, 64), (33, 257), (300, 300)) for way in ("alpha", "soft alpha", "mask")],
        ((64, 64), "segmenter"),
    ],
)
def test_every_shaded_image_passes_and_gives_its_background_back(shading_pipeline, size, way: str, tmp_path) -> None:
    product = cutout(*size, soft=way == "soft alpha")
    rgb, mask = split(product)
    original = product if "alpha" in way else rgb
    given = {"mask": mask} if way == "mask" else {}
    plain, shaded = (
        shading_pipeline(original, PROMPT, mode="soft", shadow=shadow, num_inference_steps=1, seed=0, **given)
        for shadow in (0.0, 0.7)
    )
    original.save(tmp_path / "mug.png")
    save_lossless(shaded.images[0], tmp_path / "soft.png", None, shaded.certificates[0])
    laws = {check.law: check.measured for check in verify_file(tmp_path / "soft.png", tmp_path / "mug.png").checks}
    assert laws["darkening"] <= 0.5 + 1e-6
    assert 0 < laws["shadow"] <= MAX_OPACITY
    record = shaded.certificates[0].shadow
    assert record is not None
    assert (record.strength, record.before) == (0.7, digest_image(plain.images[0]))
    before = remove_shadow(np.array(shaded.images[0]), record.shadow, record.remainder, shaded.product.core)
    assert np.array_equal(before, np.array(plain.images[0]))


def test_products_of_a_scene_cast_shadows_on_the_background_alone(shading_pipeline) -> None:
    products, layout = [cutout(64, 64), cutout(40, 60)], build_layout("160x100", layout="row")
    plain, shaded = (
        shading_pipeline(products, PROMPT, layout=layout, shadow=shadow, num_inference_steps=1, seed=0)
        for shadow in (0.0, 1.0)
    )
    before, after = np.array(plain.images[0]), np.array(shaded.images[0])
    core = shaded.product.core
    assert np.array_equal(before[core], after[core])
    for box in shaded.boxes:
        around = slice(max(0, box.top - 10), box.top + box.height + 10), slice(box.left - 5, box.left + box.width + 5)
        assert (after[around] < before[around]).any()


def test_a_product_that_floats_casts_none(shading_pipeline) -> None:
    def place(*floats: bool) -> str:
        spots = [{"left": left, "top": 20, "floats": each} for left, each in zip((10, 220), floats, strict=True)]
        return json.dumps({"canvas": "300x100", "products": spots})

    products = [cutout(30, 30), cutout(30, 30)]
    none, both, second = (
        generate(shading_pipeline, products, layout=build_layout(layout=place(*floats)), shadow=1.0)
        for floats in ((True, True), (False, False), (True, False))
    )
    assert np.array_equal(none, generate(shading_pipeline, products, layout=build_layout(layout=place(True, True))))
    left, right = slice(0, 100), slice(200, 300)
    assert (both[:, left] != none[:, left]).any()
    assert np.array_equal(second[:, left], none[:, left])
    assert (second[:, right] != none[:, right]).any()
    with pytest.raises(ValueError, match="floats of product 2 of the layout is 1: it must be true or false"):
        build_layout(layout=place(False, 1))


def test_what_cannot_be_is_refused_in_a_sentence(shading_pipeline, pipeline) -> None:
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"shadow is .*: it must be from 0, no shadow, to 1, the whole of it"):
            generate(shading_pipeline, cutout(64, 64), shadow=strength)
    with pytest.raises(ValueError, match="this model has no shadow network: assemble it with that of train_light"):
        generate(pipeline, cutout(64, 64), shadow=0.5)
    photograph = split(cutout(64, 64))[0]
    with pytest.raises(ValueError, match="a photograph that is kept has its own shadows"):
        generate(shading_pipeline, photograph, layout=build_layout("90x160", place="keep"), shadow=0.5)
    broken = CanvasPipeline(**shading_pipeline.components | {"shadow": build_broken()})
    broken.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="the shadow network gave NaN or infinity"):
        generate(broken, cutout(64, 64), shadow=0.5)


def test_the_command_casts_it_and_verify_believes_the_files(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    command = ["generate", "--model", "model", "--product", "mug.png", "--prompt", PROMPT, "--steps", "1"]
    command += ["--candidates", "1", "--shadow", "0.8"]
    for mode in ("soft", "hard"):
        assert main([*command, "--mode", mode, "--out", mode]) == 0
        assert main(["verify", f"{mode}/mug-0.png", "--product", "mug.png"]) == 0
        stated = read_provenance(Path(f"{mode}/mug-0.png").read_bytes())
        assert stated is not None
        assert stated["shadow"] == 0.8
    assert "  darkening: a pixel is 0." in capsys.readouterr().out
    assert main([*command, "--shadow", "2", "--out", "none"]) == 1
    assert "--shadow is 2.0: it must be from 0, no shadow, to 1" in capsys.readouterr().err
    assert not Path("none").exists()


def test_the_command_knows_before_it_loads_that_a_model_has_no_shadows(pipeline, folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    pipeline.save_pretrained("dark")
    for weights in Path("dark").rglob("*.safetensors"):
        weights.unlink()
    split(cutout(64, 64))[0].save("photograph.png")
    generate = ["generate", "--prompt", PROMPT, "--shadow", "0.5"]
    assert main([*generate, "--model", "dark", "--product", "mug.png"]) == 1
    assert "this model has no shadow network" in capsys.readouterr().err
    kept = ["--model", "model", "--product", "photograph.png", "--canvas", "90x160", "--place", "keep"]
    assert main([*generate, *kept]) == 1
    assert "a photograph that is kept has its own shadows" in capsys.readouterr().err


def test_a_server_answers_with_the_shadow(shading_pipeline, tmp_path: Path) -> None:
    product = cutout(40, 56)
    product.save(tmp_path / "mug.png")
    rows = pd.DataFrame({"product": [encode_png(product)], "prompt": [PROMPT], "seed": [1]})
    served, means = ServedPipeline(shading_pipeline), []
    for shadow in (0.0, 1.0):
        made = served.predict(rows, {"steps": 1, "mode": "soft", "shadow": shadow})["image"][0]
        (tmp_path / "made.png").write_bytes(made)
        laws = [check.law for check in verify_file(tmp_path / "made.png", tmp_path / "mug.png").checks]
        assert ("shadow" in laws) == (shadow > 0)
        means.append(np.array(Image.open(tmp_path / "made.png")).mean())
    assert means[1] < means[0]
