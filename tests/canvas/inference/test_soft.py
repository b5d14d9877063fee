"""Mode soft: the product in the scene's light, certified, by every way in; and mode hard as if there were none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.files import replace_image, save_beside, save_certificate, save_lossless
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.selection import select_best
from canvas.inference.served import ServedPipeline
from canvas.layout.spec import build_layout
from canvas.light.certificate import SUFFIX, digest_image
from canvas.light.laws import LIMITS
from canvas.pins.images import encode_png
from canvas.verification import BrokenLawError, verify_file
from tests.canvas.inference.conftest import cutout, split
from tests.canvas.inference.test_close_up import place
from tests.canvas.light.test_model import build_moved
from tests.canvas.reward.test_model import build_tiny_reward
from tests.canvas.upscaler.test_model import build_moved as build_moved_upscaler

PROMPT = "a mug, forest"


@pytest.fixture(scope="module")
def lighting_pipeline(segmenting_pipeline: CanvasPipeline) -> CanvasPipeline:
    """A pipeline with a segmenter and a light network that has learnt something, whose gains are far from lawful."""
    made = CanvasPipeline(**segmenting_pipeline.components | {"light": build_moved(3.0)}, max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(lighting_pipeline: CanvasPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/ with a light network; mug.png."""
    path = tmp_path_factory.mktemp("soft")
    lighting_pipeline.save_pretrained(path / "model")
    cutout(64, 64).save(path / "mug.png")
    return path


def test_mode_hard_is_the_default_and_knows_no_light(lighting_pipeline, pipeline):
    product = cutout(64, 64)
    plain = pipeline(product, PROMPT, num_inference_steps=1, seed=0)
    default = lighting_pipeline(product, PROMPT, num_inference_steps=1, seed=0)
    hard = lighting_pipeline(product, PROMPT, mode="hard", num_inference_steps=1, seed=0)
    assert plain.images[0].tobytes() == default.images[0].tobytes() == hard.images[0].tobytes()
    assert default.certificates == hard.certificates == []


@pytest.mark.parametrize(
    ("size", "way"),
    [
        *[(size, way) for size in ((64, 64), (33, 257), (300, 300)) for way in ("alpha", "soft alpha", "mask")],
        ((3, 40), "alpha"),
        ((64, 64), "segmenter"),
    ],
)
def test_every_soft_image_passes_from_its_files_alone(lighting_pipeline, size, way, tmp_path: Path):
    product = cutout(*size, soft=way == "soft alpha")
    rgb, mask = split(product)
    original = product if "alpha" in way else rgb
    given = {"mask": mask} if way == "mask" else {}
    made = lighting_pipeline(original, PROMPT, mode="soft", num_inference_steps=1, seed=0, **given)
    original.save(tmp_path / "mug.png")
    save_lossless(made.images[0], tmp_path / "soft.png", None, made.certificates[0])
    verification = verify_file(tmp_path / "soft.png", tmp_path / "mug.png")
    assert (verification.mode, verification.core_source) == ("soft", made.product.origin)
    measured = {check.law: check.measured for check in verification.checks}
    assert measured.keys() - {"band"} == set(LIMITS)
    assert ("band" in measured) == (way == "mask") or way == "segmenter"
    assert measured["residual"] == 0  # on the machine that made it there is none
    if way == "mask":
        mask.save(tmp_path / "mask.png")
        again = verify_file(tmp_path / "soft.png", tmp_path / "mug.png", mask=tmp_path / "mask.png")
        assert again.checks[:-1] == verification.checks
        assert again.checks[-1].law == "mended"
    core = made.product.core
    assert (np.array(made.images[0])[core] != np.array(original.convert("RGB"))[core]).any()


def test_light_moves_the_product_and_its_edge_only(lighting_pipeline):
    product = cutout(90, 90, soft=True)
    hard, soft = (
        np.array(lighting_pipeline(product, PROMPT, mode=mode, num_inference_steps=1, seed=3).images[0])
        for mode in ("hard", "soft")
    )
    changed = (hard != soft).any(-1)
    assert changed.any()
    assert not changed[np.array(product)[..., 3] == 0].any()


@pytest.mark.parametrize("upscale", [None, 1, 2])
@pytest.mark.parametrize("product", [cutout(150, 140, soft=True), place(640, 60, 60, 290, 300)], ids=["large", "small"])
def test_the_certificate_is_that_of_the_enlarged_image(lighting_pipeline, product, upscale, tmp_path: Path):
    """The gain comes after the paste at full size: the background round it is that of mode hard."""
    parts = lighting_pipeline.components | {"upscaler": build_moved_upscaler()}
    enlarging = CanvasPipeline(**parts, max_aspect=2.0)
    enlarging.set_progress_bar_config(disable=True)
    hard, soft = (
        enlarging(product, PROMPT, mode=mode, upscale=upscale, num_inference_steps=1, seed=0)
        for mode in ("hard", "soft")
    )
    assert soft.images[0].size == product.size
    product.save(tmp_path / "mug.png")
    save_lossless(soft.images[0], tmp_path / "soft.png", None, soft.certificates[0])
    verification = verify_file(tmp_path / "soft.png", tmp_path / "mug.png")
    assert {check.law: check.measured for check in verification.checks}["residual"] == 0
    changed = (np.array(hard.images[0]) != np.array(soft.images[0])).any(-1)
    assert changed.any()
    assert not changed[np.array(product)[..., 3] == 0].any()


def test_certificates_follow_the_images_that_are_chosen(lighting_pipeline):
    best = select_best(
        lighting_pipeline,
        build_tiny_reward(),
        cutout(64, 64),
        PROMPT,
        candidates=3,
        top=2,
        seed=0,
        mode="soft",
        num_inference_steps=1,
    )
    assert [made.image_digest for made in best.certificates] == [digest_image(image) for image in best.images]


def test_what_cannot_be_is_refused_in_a_sentence(lighting_pipeline, pipeline):
    with pytest.raises(ValueError, match="mode is 'softer': it must be hard or soft"):
        lighting_pipeline(cutout(64, 64), PROMPT, mode="softer")
    kept = build_layout("90x160", place="keep")
    with pytest.raises(ValueError, match="mode soft relights products, but a photograph that is kept stays"):
        lighting_pipeline(cutout(64, 64).convert("RGB"), PROMPT, mode="soft", layout=kept)
    with pytest.raises(ValueError, match="this model has no light network, which mode soft needs"):
        pipeline(cutout(64, 64), PROMPT, mode="soft")


def test_the_command_writes_certificates_and_verify_believes_the_files(folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    generate = ["generate", "--model", "model", "--product", "mug.png", "--prompt", PROMPT, "--steps", "1"]
    assert main([*generate, "--mode", "soft", "--candidates", "2", "--out", "out"]) == 0
    assert sorted(file.name for file in Path("out").iterdir()) == [
        *("mug-0.certificate.json", "mug-0.png", "mug-1.certificate.json", "mug-1.png")
    ]
    for name in ("mug-0.png", "mug-1.png"):
        assert main(["verify", f"out/{name}", "--product", "mug.png"]) == 0
    assert main([*generate, "--mode", "soft", "--candidates", "1", "--format", "webp", "--out", "webp"]) == 0
    assert main(["verify", "webp/mug-0.webp", "--product", "mug.png"]) == 0
    assert main([*generate, "--candidates", "1", "--out", "hard"]) == 0
    assert [file.name for file in Path("hard").iterdir()] == ["mug-0.png"]
    assert main(["verify", "hard/mug-0.png", "--product", "mug.png"]) == 0
    assert "pass (hard)" in capsys.readouterr().out.splitlines()[-2]
    assert main([*generate, "--mode", "soft", "--candidates", "1", "--out", "hard"]) == 0  # beside the hard one
    assert {"mug-0_2.png", "mug-0_2.certificate.json"} <= {file.name for file in Path("hard").iterdir()}


def test_the_command_knows_before_it_loads_that_a_model_has_no_light(pipeline, folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    pipeline.save_pretrained("dark")
    for weights in Path("dark").rglob("*.safetensors"):
        weights.unlink()
    generate = ["generate", "--model", "dark", "--product", "mug.png", "--prompt", PROMPT, "--mode", "soft"]
    assert main(generate) == 1
    assert "this model has no light network, which mode soft needs" in capsys.readouterr().err


def test_a_server_answers_with_the_certificate_in_the_image(lighting_pipeline, tmp_path: Path):
    product = cutout(40, 56)
    product.save(tmp_path / "mug.png")
    rows = pd.DataFrame({"product": [encode_png(product)], "prompt": [PROMPT], "seed": [1]})
    for mode in ("soft", "hard"):
        made = ServedPipeline(lighting_pipeline).predict(rows, {"steps": 1, "mode": mode})["image"][0]
        (tmp_path / "made.png").write_bytes(made)
        assert verify_file(tmp_path / "made.png", tmp_path / "mug.png").mode == mode


def test_a_certificate_of_another_image_does_not_pass(lighting_pipeline, tmp_path: Path):
    product = cutout(64, 64)
    product.save(tmp_path / "mug.png")
    made = lighting_pipeline(product, PROMPT, mode="soft", num_inference_steps=1, seed=0, num_candidates=2)
    save_lossless(made.images[0], tmp_path / "a.png")
    save_certificate(made.certificates[1], tmp_path / "a.png")
    assert (tmp_path / ("a" + SUFFIX)).is_file()
    with pytest.raises(BrokenLawError):
        verify_file(tmp_path / "a.png", tmp_path / "mug.png")
    Image.open(tmp_path / "a.png").verify()


def test_no_certificate_of_another_image_is_replaced_or_taken(lighting_pipeline, tmp_path: Path):
    product = cutout(64, 64)
    product.save(tmp_path / "mug.png")
    soft = lighting_pipeline(product, PROMPT, mode="soft", num_candidates=2, num_inference_steps=1, seed=0)
    hard = lighting_pipeline(product, PROMPT, num_inference_steps=1, seed=0).images[0]
    (first, second), (one, other) = soft.images, soft.certificates
    foreign = tmp_path / f"a{SUFFIX}"
    foreign.write_text("somebody's")
    assert save_beside(first, tmp_path / "a.png", None, one) == tmp_path / "a_2.png"
    assert save_beside(second, tmp_path / "a_2.webp", None, other) == tmp_path / "a_2_2.webp"
    assert save_beside(hard, tmp_path / "a_2.webp") == tmp_path / "a_2_3.webp"
    assert save_beside(first, tmp_path / "a.png", None, one) == tmp_path / "a_2.png"  # the same again
    assert foreign.read_text() == "somebody's"
    modes = {path.name: verify_file(path, tmp_path / "mug.png").mode for path in sorted(tmp_path.glob("a_2*[pg]"))}
    assert modes == {"a_2.png": "soft", "a_2_2.webp": "soft", "a_2_3.webp": "hard"}

    replace_image(second, tmp_path / "a_2.png", None, other)
    assert verify_file(tmp_path / "a_2.png", tmp_path / "mug.png").mode == "soft"
    replace_image(hard, tmp_path / "a_2.png")  # its certificate goes with the image that was there
    assert verify_file(tmp_path / "a_2.png", tmp_path / "mug.png").mode == "hard"
    replace_image(hard, tmp_path / "a.png")
    assert foreign.read_text() == "somebody's"
