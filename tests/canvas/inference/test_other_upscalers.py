"""Backgrounds that a diffusion upscaler or one of the Real-ESRGAN class enlarges: the product stays exact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from tests.canvas.inference.conftest import cutout
from tests.canvas.inference.test_close_up import place
from tests.canvas.inference.test_upscaling import PROMPT, generate
from tests.canvas.upscaler.test_diffusion import build_moved
from tests.canvas.upscaler.test_rrdb import build_rrdb

LOAD_ALONE = """
import sys
from canvas.inference.pipeline import CanvasPipeline
pipeline = CanvasPipeline.from_pretrained(sys.argv[1])
print(type(pipeline.upscaler).__name__, sum(value.double().sum() for value in pipeline.upscaler.parameters()).item())
"""


@pytest.fixture(scope="module", params=[build_rrdb, build_moved], ids=["real-esrgan", "diffusion"])
def enlarging(pipeline: CanvasPipeline, request: pytest.FixtureRequest) -> CanvasPipeline:
    """`pipeline` with a tiny upscaler of each other kind."""
    parts = {name: part for name, part in pipeline.components.items() if name != "upscaler"}
    made = CanvasPipeline(**parts, upscaler=request.param(), max_aspect=2.0)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("upscale", [2, 4, None])
@pytest.mark.parametrize("size", [(150, 140), (300, 420)])
def test_the_core_stays_exact(enlarging, pipeline, size: tuple[int, int], upscale: int | None) -> None:
    product = cutout(*size)
    pixels = np.array(product)
    image = generate(enlarging, product, upscale=upscale)
    core = build_product(product).core
    assert image.shape == pixels[..., :3].shape
    assert np.array_equal(image[core], pixels[..., :3][core])
    assert not np.array_equal(image, generate(pipeline, product))


def test_factor_1_does_without_it(enlarging, pipeline) -> None:
    product = cutout(150, 140)
    assert np.array_equal(generate(enlarging, product, upscale=1), generate(pipeline, product))


def test_a_close_up_is_enlarged(enlarging) -> None:
    product = place(640, 60, 60, 290, 300)
    image = generate(enlarging, product)
    assert np.array_equal(image[290:350, 300:360], np.array(product)[290:350, 300:360, :3])
    assert not np.array_equal(image, generate(enlarging, product, upscale=1))


def test_it_travels_with_the_model(enlarging, tmp_path: Path) -> None:
    """Also to a process that knows nothing but the model's directory."""
    product, model = cutout(150, 140), tmp_path / "model"
    enlarging.save_pretrained(model)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD_ALONE, str(model)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    name, total = loaded.stdout.split()[-2:]
    assert name == type(enlarging.upscaler).__name__
    assert float(total) == sum(value.double().sum() for value in enlarging.upscaler.parameters()).item()
    product.save(tmp_path / "mug.png")
    arguments = ["generate", "--product", str(tmp_path / "mug.png"), "--prompt", PROMPT, "--steps", "2", "--seed", "4"]
    arguments += ["--candidates", "1", "--precision", "fp32", "--out", str(tmp_path), "--upscale", "2"]
    assert main([*arguments, "--model", str(model)]) == 0
    with Image.open(tmp_path / "mug-4.png") as image:
        assert np.array_equal(np.array(image), generate(enlarging, product, upscale=2))
