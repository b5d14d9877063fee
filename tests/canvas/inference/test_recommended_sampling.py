"""A model carries its recommended sampling; a caller's own settings go before; an older model has the defaults."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from canvas.__main__ import main
from canvas.denoiser.lora import add_lora
from canvas.denoiser.spec import DEFAULT_SAMPLING, PassSpec, RecommendedSampling, ReuseSpec
from canvas.inference.batch import Request, encode_requests, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.served import ServedPipeline
from canvas.inference.style import encode_style_images
from canvas.pins.images import encode_png
from tests.canvas.inference.conftest import cutout
from tests.canvas.inference.test_style import noise

PROMPT = "red mug, in a forest"
SAMPLING = RecommendedSampling(
    steps=3,
    guidance_scale=4.0,
    guidance_stop=0.5,
    autoguidance_scale=0.0,
    style_guidance_scale=2.0,
    style_guidance_stop=1.0,
    style_strength=0.5,
    reuse=None,
    scheduler="heun",
)
WITH_PROMPT = {"num_inference_steps": 3, "guidance_scale": 4.0, "guidance_stop": 0.5, "scheduler": "heun"}
STYLE_ALONE = {"num_inference_steps": 3, "guidance_scale": 2.0, "guidance_stop": 1.0, "scheduler": "heun"}


@pytest.fixture(scope="module")
def folder(styled_pipeline: CanvasPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with recommended sampling, and a product."""
    path = tmp_path_factory.mktemp("recommended")
    config = {name: styled_pipeline.config[name] for name in ("max_aspect", "image_source", "style_layers")}
    CanvasPipeline(**styled_pipeline.components, **config, sampling=asdict(SAMPLING)).save_pretrained(path / "model")
    cutout(60, 60).save(path / "mug.png")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> CanvasPipeline:
    pipeline = CanvasPipeline.from_pretrained(folder / "model")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels(pipeline: CanvasPipeline, prompt: str | None = PROMPT, **options) -> np.ndarray:
    return np.array(pipeline(cutout(60, 60), prompt, seed=0, **options).images[0])


def test_the_model_says_how_it_is_sampled(model: CanvasPipeline):
    assert model.recommended_sampling == SAMPLING
    assert np.array_equal(pixels(model), pixels(model, **WITH_PROMPT))
    style = encode_style_images(model, [noise(1)])
    assert set(style.strengths.values()) == {0.5}
    assert np.array_equal(pixels(model, style=style), pixels(model, style=style, **WITH_PROMPT))
    assert np.array_equal(pixels(model, None, style=style), pixels(model, None, style=style, **STYLE_ALONE))
    assert not np.array_equal(pixels(model, None, style=style), pixels(model, None, style=style, **WITH_PROMPT))
    spec = SAMPLING.build_spec(PassSpec(batch_size=2, precision="fp32"))
    assert (spec.steps, spec.guidance_scale, spec.guidance_stop, spec.batch_size) == (3, 4.0, 0.5, 2)


@pytest.mark.parametrize("other", [{"num_inference_steps": 2}, {"guidance_scale": 1.0}, {"scheduler": "euler"}])
def test_a_callers_own_setting_goes_before(model: CanvasPipeline, other: dict[str, object]):
    image = pixels(model, **other)
    assert np.array_equal(image, pixels(model, **WITH_PROMPT | other))
    assert not np.array_equal(image, pixels(model))


def test_the_command_line_uses_it_and_its_flags_go_before(folder: Path, model: CanvasPipeline):
    def generate(*flags: str) -> np.ndarray:
        paths = "--model", str(folder / "model"), "--product", str(folder / "mug.png"), "--out", str(folder / "out")
        assert (
            main(
                [
                    "generate",
                    *paths,
                    "--candidates",
                    "1",
                    "--precision",
                    "fp32",
                    "--prompt",
                    PROMPT,
                    "--overwrite",
                    *flags,
                ]
            )
            == 0
        )
        return np.array(Image.open(folder / "out" / "mug-0.png"))

    assert np.abs(generate().astype(int) - pixels(model)).max() <= 1  # the command merges LoRAs
    own = {"num_inference_steps": 2, "guidance_scale": 3.0, "guidance_stop": 1.0, "scheduler": "euler"}
    flags = "--steps", "2", "--guidance", "3", "--guidance-stop", "1", "--scheduler", "euler"
    assert np.abs(generate(*flags).astype(int) - pixels(model, **own)).max() <= 1


def test_the_registrys_model_uses_it_and_its_params_go_before(model: CanvasPipeline):
    rows = pd.DataFrame({"product": [encode_png(cutout(60, 60))], "prompt": [PROMPT], "seed": [0]})

    def predict(**params: object) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(ServedPipeline(model).predict(rows, params)["image"][0])).convert("RGB"))

    assert np.array_equal(predict(), pixels(model))
    assert np.array_equal(predict(steps=2), pixels(model, num_inference_steps=2))


def test_what_steps_reuse_is_recommended_too(folder: Path, model: CanvasPipeline, tmp_path: Path):
    reuse, settings = ReuseSpec(guidance=2, blocks=1), {"guidance_scale": 4.0, "num_inference_steps": 3}
    recommended = replace(SAMPLING, guidance_stop=1.0, reuse=reuse, scheduler=None)
    config = {name: model.config[name] for name in ("max_aspect", "image_source", "style_layers")}
    CanvasPipeline(**model.components, **config, sampling=asdict(recommended)).save_pretrained(tmp_path)
    again = CanvasPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.recommended_sampling == recommended
    assert again.recommended_sampling.build_spec(PassSpec(batch_size=2, precision="fp32")).reuse == reuse
    plain = {"guidance_stop": 1.0, "scheduler": "euler", **settings}
    assert np.array_equal(pixels(again), pixels(model, reuse=reuse, **plain))
    assert np.array_equal(pixels(again, reuse=ReuseSpec(guidance=1, blocks=1)), pixels(model, **plain))
    assert not np.array_equal(pixels(again), pixels(model, **plain))
    with pytest.raises(ValueError, match=r"reuse\.blocks is 2, but a UNet's blocks are not reused: use 1"):
        pixels(model, reuse=ReuseSpec(guidance=1, blocks=2))


def test_a_model_of_before_has_the_defaults(folder: Path, tmp_path: Path):
    older = tmp_path / "older"
    older.mkdir()
    for part in (folder / "model").iterdir():
        (older / part.name).symlink_to(part)
    index = json.loads((older / "model_index.json").read_text())
    del index["sampling"]
    (older / "model_index.json").unlink()
    (older / "model_index.json").write_text(json.dumps(index))
    pipeline = CanvasPipeline.from_pretrained(older)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.recommended_sampling == DEFAULT_SAMPLING
    before = {"num_inference_steps": 30, "guidance_scale": 5.0, "guidance_stop": 1.0}
    assert np.array_equal(pixels(pipeline), pixels(pipeline, **before))
    stored = asdict(SAMPLING)
    del stored["reuse"]  # of a model from before it was a setting
    assert RecommendedSampling.from_config(stored) == SAMPLING


def build_tuned(pipeline: CanvasPipeline, autoguidance: float) -> CanvasPipeline:
    """The pipeline with a LoRA that has learnt something, and recommended autoguidance."""
    torch.manual_seed(3)
    unet = add_lora(copy.deepcopy(pipeline.unet), rank=2, alpha=4)
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    sampling = replace(SAMPLING, autoguidance_scale=autoguidance, scheduler=None)
    made = CanvasPipeline(**pipeline.components | {"unet": unet}, max_aspect=2.0, sampling=asdict(sampling))
    made.set_progress_bar_config(disable=True)
    return made


def test_autoguidance_is_recommended_and_stays_when_loras_are_merged(pipeline: CanvasPipeline):
    tuned, plain = build_tuned(pipeline, 0.5), build_tuned(pipeline, 0.0)
    image = pixels(tuned)
    assert np.array_equal(pixels(tuned, autoguidance_scale=0.0), pixels(plain))
    assert np.array_equal(image, pixels(plain, autoguidance_scale=0.5))
    assert not np.array_equal(image, pixels(plain))
    tuned.merge_lora()
    assert np.abs(pixels(tuned).astype(int) - image).max() <= 1
    tuned.set_precision("bf16")
    assert pixels(tuned).shape == image.shape


def test_a_model_without_loras_is_not_autoguided(pipeline: CanvasPipeline):
    """What is recommended for trained models does not stop one without; what a caller asks for is refused."""
    sampling = asdict(replace(SAMPLING, autoguidance_scale=0.5, scheduler=None))
    bare = CanvasPipeline(**pipeline.components, max_aspect=2.0, sampling=sampling)
    bare.set_progress_bar_config(disable=True)
    same = CanvasPipeline(**pipeline.components, max_aspect=2.0, sampling=sampling | {"autoguidance_scale": 0.0})
    same.set_progress_bar_config(disable=True)
    assert np.array_equal(pixels(bare), pixels(same))
    with pytest.raises(ValueError, match=r"autoguidance_scale is 0\.5, but this denoiser has no LoRAs"):
        pixels(bare, autoguidance_scale=0.5)


def test_batches_are_autoguided_as_single_images_are(pipeline: CanvasPipeline):
    tuned = build_tuned(pipeline, 0.5)
    spec = tuned.recommended_sampling.build_spec(PassSpec(batch_size=2, precision="fp32"))
    product = build_product(cutout(60, 60))
    requests = encode_requests(tuned, [Request(product=product, prompt=PROMPT, seed=0)] * 2)
    images = generate_images(tuned, requests, spec, name="test")
    assert np.abs(images[0].astype(int) - pixels(tuned)).max() <= 1
