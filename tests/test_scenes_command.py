"""`python -m bench.scenes` on the smallest real parts: every part runs and says what it measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.scenes import __main__ as command
from bench.scenes.outpainting import choose_hidden_part, measure_banners, measure_outpainting, mirror_hidden
from bench.scenes.sheets import write_sheets
from bench.scenes.subjects import Subjects, cut_out
from canvas.denoiser.spec import DEFAULT_SAMPLING
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins.products import ProductPin
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from tests.canvas.inference.conftest import cutout, pipeline, segmenting_pipeline  # noqa: F401
from tests.canvas.light.test_model import build_moved


def build_pin(number: int) -> ProductPin:
    product = cutout(64, 64 + 8 * number)
    mask = np.asarray(product.getchannel("A")) > 127
    draw = np.random.default_rng(number).integers(0, 255, (*mask.shape, 3), np.uint8)
    pixels = np.where(mask[..., None], np.asarray(product.convert("RGB")), draw)
    return ProductPin(f"pin{number}", Image.fromarray(pixels), mask, "mug", f"mug{number}", "cups", "in a forest")


@pytest.fixture
def subjects(segmenting_pipeline: CanvasPipeline, tmp_path: Path) -> Subjects:  # noqa: F811
    sampling = asdict(replace(DEFAULT_SAMPLING, steps=1, guidance_scale=1.0))
    parts = segmenting_pipeline.components | {"light": build_moved(1.0)}
    made = CanvasPipeline(**parts, max_aspect=2.0, sampling=sampling)
    made.set_progress_bar_config(disable=True)
    segmenter = Segmenter(made.segmenter, made.segmenter_processor).eval()
    edges = EdgeSpec(radius=4, epsilon=1e-3)
    return Subjects(tmp_path, made, segmenter, edges, [build_pin(number) for number in range(4)], ["in a forest"])


def test_a_part_that_shows_least_of_the_product_is_hidden() -> None:
    pin = build_pin(0)
    mask = np.zeros_like(pin.mask)
    mask[:, :20] = True
    part = choose_hidden_part(ProductPin("p", pin.image, mask, "mug"), 0.25)
    assert part.place == "keep-left"
    assert part.hidden == (48, 0, 64, 64)
    mirrored = mirror_hidden(pin.image, part)
    assert mirrored.shape == (64, 64, 3)
    assert np.array_equal(mirrored[:, :48], np.asarray(pin.image)[:, :48])


def test_a_cut_out_is_the_product_and_little_more() -> None:
    pin = build_pin(0)
    product = cut_out(pin)
    assert product.mode == "RGBA"
    assert (np.asarray(product.getchannel("A")) > 0).sum() == pin.mask.sum()


def test_outpainting_and_banners_are_measured_beside_real_images(subjects: Subjects) -> None:
    figures = measure_outpainting(subjects, 4)
    assert figures["pins"] == 4
    assert set(figures["border_gradient_ratio"]) == {"generated", "real", "mirrored"}
    assert np.isfinite(figures["kid"]["generated"]).all()
    banners = measure_banners(subjects, 2)
    assert banners["banners"] == 2
    assert banners["windows"] > 1


def test_sheets_are_images(subjects: Subjects, tmp_path: Path) -> None:
    paths = write_sheets(subjects, tmp_path / "sheets")
    assert [Path(path).stem for path in paths] == ["modes", "formats", "products"]  # it has no upscaler
    for path in paths:
        Image.open(path).verify()


def test_without_a_full_run_it_says_what_is_missing(tmp_path: Path, capsys) -> None:
    assert command.main(["--root", str(tmp_path)]) == 1
    assert "needs models/canvas, models/uve, artifacts/pins, artifacts/truth" in capsys.readouterr().err
