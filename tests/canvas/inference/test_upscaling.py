"""Backgrounds enlarged by the model's upscaler: the double paste, on every way to an image."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.batch import Request, encode_requests, iterate_images
from canvas.inference.conditioning import choose_factor
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product, compute_frame, frame_product, frame_product_bytes
from canvas.inference.served import ServedPipeline
from canvas.pins.images import encode_png
from tests.canvas.inference.conftest import cutout, sampling
from tests.canvas.inference.test_close_up import place
from tests.canvas.upscaler.test_model import build_moved

PROMPT = "a mug, forest"
OPTIONS = {"num_inference_steps": 2, "seed": 4}


@pytest.fixture(scope="module")
def enlarging(pipeline: CanvasPipeline) -> CanvasPipeline:
    """`pipeline` with an upscaler."""
    parts = {name: part for name, part in pipeline.components.items() if name != "upscaler"}
    made = CanvasPipeline(**parts, upscaler=build_moved(), max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline: CanvasPipeline, product: Image.Image, **options: object) -> np.ndarray:
    return np.array(pipeline(product, PROMPT, **OPTIONS | options).images[0])


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(64, 64, 1), (65, 64, 2), (128, 90, 2), (200, 129, 4), (900, 900, 4)]
)
def test_the_factor_is_what_the_product_image_has_pixels_for(height: int, width: int, factor: int) -> None:
    assert choose_factor(compute_frame(64, 64, side=64, multiple=8, max_aspect=1), height, width) == factor


@pytest.mark.parametrize("size", [(512, 512), (300, 420), (520, 150), (90, 100)])
@pytest.mark.parametrize("factor", [2, 4])
def test_the_full_size_mask_averaged_down_is_the_small_mask(size: tuple[int, int], factor: int) -> None:
    """So the two pastes show one edge: to two levels of 255 where the photograph has the pixels, and as one centre to a
    twentieth of a small pixel where it is enlarged."""
    product = build_product(cutout(*size, soft=True))
    frame = compute_frame(*size, side=64, multiple=8, max_aspect=2.0)
    fine, small = frame.scale(factor), frame_product(product, frame).alpha[0, 0].numpy()
    _, alpha = frame_product_bytes(product, fine)
    assert alpha.shape == (factor * frame.height, factor * frame.width)
    averaged = cv2.resize(alpha.astype(np.float32) / 255, (frame.width, frame.height), interpolation=cv2.INTER_AREA)
    if min(size[0] / fine.inner_height, size[1] / fine.inner_width) >= 1:
        assert np.abs(averaged - small).max() <= 8 / 255
        assert np.abs(averaged - small).mean() <= 0.5 / 255
    for axis in (0, 1):
        places = np.arange(small.shape[axis]) + 0.5
        centres = [(plane.sum(1 - axis) * places).sum() / plane.sum() for plane in (averaged, small)]
        assert abs(centres[0] - centres[1]) < 0.05


@pytest.mark.parametrize("size", [(150, 140), (700, 520)])
def test_the_product_stays_exact_on_an_enlarged_background(enlarging, pipeline, size: tuple[int, int]) -> None:
    product = cutout(*size)
    pixels = np.array(product)
    image, plain = generate(enlarging, product), generate(pipeline, product)
    core = build_product(product).core
    assert image.shape == pixels[..., :3].shape
    assert np.array_equal(image[core], pixels[..., :3][core])
    assert not np.array_equal(image, plain)


def test_factor_1_is_byte_for_byte_a_model_without_upscaler(enlarging, pipeline) -> None:
    product = cutout(150, 140)
    assert np.array_equal(generate(enlarging, product, upscale=1), generate(pipeline, product))
    assert np.array_equal(generate(pipeline, product, upscale=1), generate(pipeline, product))
    assert np.array_equal(generate(enlarging, product, upscale=4), generate(enlarging, product))
    assert not np.array_equal(generate(enlarging, product, upscale=2), generate(enlarging, product))
    small = cutout(56, 56)
    assert np.array_equal(generate(enlarging, small), generate(pipeline, small))


def test_batches_give_what_the_pipeline_gives(enlarging) -> None:
    product = cutout(150, 140)
    requests = encode_requests(enlarging, [Request(product=build_product(product), prompt=PROMPT, seed=4)])
    ((_, image),) = iterate_images(enlarging, requests, sampling())
    alone = generate(enlarging, product, guidance_scale=1.0)
    assert np.abs(image.astype(int) - alone).max() <= 4  # a level of the small image, which random weights make more of


def test_a_close_up_is_enlarged_with_its_surroundings(enlarging) -> None:
    product = place(640, 60, 60, 290, 300)
    image = generate(enlarging, product)
    assert np.array_equal(image[290:350, 300:360], np.array(product)[290:350, 300:360, :3])
    assert not np.array_equal(image, generate(enlarging, product, upscale=1))


def test_it_travels_with_the_model(enlarging, pipeline, tmp_path: Path, capsys) -> None:
    product = cutout(150, 140)
    enlarging.save_pretrained(tmp_path / "model")
    again = CanvasPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(generate(again, product), generate(enlarging, product))
    product.save(tmp_path / "mug.png")
    arguments = ["generate", "--product", str(tmp_path / "mug.png"), "--prompt", PROMPT, "--steps", "2", "--seed", "4"]
    arguments += ["--candidates", "1", "--precision", "fp32", "--out", str(tmp_path)]
    assert main([*arguments, "--model", str(tmp_path / "model"), "--upscale", "2"]) == 0
    with Image.open(tmp_path / "mug-4.png") as image:
        assert np.array_equal(np.array(image), generate(enlarging, product, upscale=2))
    pipeline.save_pretrained(tmp_path / "plain")
    assert main([*arguments, "--model", str(tmp_path / "plain"), "--upscale", "2"]) == 1
    assert "--upscale is 2, but this model has no upscaler" in capsys.readouterr().err


def test_the_registrys_model_takes_the_factor(enlarging) -> None:
    product = cutout(150, 140)
    rows = pd.DataFrame({"product": [encode_png(product)], "prompt": [PROMPT], "seed": [4]})
    for factor in (None, 2):
        (png,) = ServedPipeline(enlarging).predict(rows, {"steps": 2, "upscale": factor})["image"]
        image = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
        assert np.array_equal(image, generate(enlarging, product, upscale=factor))


def test_factors_that_cannot_be_are_refused(enlarging, pipeline) -> None:
    with pytest.raises(ValueError, match="upscale is 3: it must be 1, 2, 4, or None"):
        generate(enlarging, cutout(64, 64), upscale=3)
    with pytest.raises(ValueError, match="upscale is 2, but this model has no upscaler"):
        generate(pipeline, cutout(64, 64), upscale=2)
