"""What is computed on a GPU comes back to the CPU, and is what the CPU computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser import sheet
from canvas.denoiser.loading import build_denoiser
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sheet import SampleSheet
from canvas.denoiser.spec import HeldOutSpec, SheetSpec
from canvas.denoiser.training import compute_held_out_loss, read_held_out
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.inference.batch import Request, encode_requests, generate_images
from canvas.inference.generation.encoding import read_scene
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.style import encode_style_images
from canvas.shards.rows import ShardRows, has_product
from canvas.vae.model import get_latent_scale, load_vae
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import FLOW
from tests.canvas.inference.conftest import cutout, sampling
from tests.components.generator_parts import CHANNELS, POOLED_WIDTH, TEXT_WIDTH, write_random_shards, write_vae

NEAR = 8
"""Levels of 255: as far apart as two devices' roundings may bring an image."""

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_GPU)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random shards and a random autoencoder."""
    folder = tmp_path_factory.mktemp("random")
    write_random_shards(folder / "shards")
    write_vae(folder / "vae")
    return folder


@pytest.fixture
def drawn(folder: Path) -> SampleSheet:
    """The sheet of an inpainting denoiser, its autoencoder on the CPU as a stage loads it."""
    rows = ShardRows(folder / "shards")
    return SampleSheet(
        load_vae(folder / "vae").eval(),
        build_training_scheduler(FLOW),
        ShardRows(folder / "shards"),
        SheetSpec(pins=2, steps=2, guidance_scale=3.0),
        masks="product",
        rows=[row for row in rows.index if has_product(row) and row.split != "train"],
    )


def _denoiser() -> UNet2DConditionModel:
    torch.manual_seed(0)
    widths = {"text_width": TEXT_WIDTH, "pooled_width": POOLED_WIDTH}
    return add_inpaint_channels(build_denoiser(tiny.DENOISER, latent_channels=CHANNELS, sample_size=8, **widths)).eval()


def _apart(one: object, other: object) -> int:
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


@DEVICES
def test_a_sheet_is_drawn_where_the_denoiser_is(drawn: SampleSheet, device: str):
    expected = drawn.draw(_denoiser())
    assert _apart(drawn.draw(_denoiser().to(device)), expected) <= (0 if device == "cpu" else NEAR)
    assert drawn.vae.device.type == device


def test_large_images_of_a_sheet_are_decoded_one_by_one(drawn: SampleSheet, monkeypatch: pytest.MonkeyPatch):
    expected, decode, sizes = drawn.draw(_denoiser()), drawn.vae.decode, []
    monkeypatch.setattr(sheet, "PIXELS_PER_PASS", 1)
    monkeypatch.setattr(drawn.vae, "decode", lambda latents: sizes.append(len(latents)) or decode(latents))
    assert _apart(drawn.draw(_denoiser()), expected) <= 1
    assert sizes == [1] * 6  # two pins: the originals, what is known of them, samples


@DEVICES
def test_a_held_out_loss_is_computed_where_the_denoiser_is(folder: Path, device: str):
    rows, scale = ShardRows(folder / "shards"), get_latent_scale(load_vae(folder / "vae"))
    objective = DenoisingObjective(FLOW, scale, captions=3, caption_dropout=0.0, inpaint=True)
    held_out = [row for row in rows.index if has_product(row) and row.split != "train"]
    spec = HeldOutSpec(pins=4, repeats=16, batch_size=2, ema=(0.1,), averages=(0.1,))
    batches = read_held_out(rows, held_out, spec, "product")
    expected, scores = (
        compute_held_out_loss(_denoiser().to(at), objective, batches, spec.repeats) for at in ("cpu", device)
    )
    assert scores == pytest.approx(expected, rel=1e-12 if device == "cpu" else 0.2)  # a GPU draws other noise


@pytest.fixture
def moved(styled_pipeline: CanvasPipeline, device: str) -> Iterator[CanvasPipeline]:
    yield styled_pipeline.to(device)
    styled_pipeline.to("cpu")


@DEVICES
def test_a_seed_gives_the_same_image_on_every_device(moved: CanvasPipeline, device: str):
    given = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 1, "negative_prompt": "grey"}
    style = encode_style_images(moved, [cutout(40, 48)])
    image_moved = moved(cutout(64, 64, True), "a mug, forest", style=style, **given).images[0]
    many = generate_images(
        moved,
        encode_requests(moved, [Request(product=build_product(cutout(64, 64, True)), prompt="a mug, forest", seed=1)]),
        sampling(steps=2, guidance_scale=3.0),
        name="one",
    )
    moved.to("cpu")
    style = encode_style_images(moved, [cutout(40, 48)])
    assert _apart(moved(cutout(64, 64, True), "a mug, forest", style=style, **given).images[0], image_moved) <= NEAR
    alone = moved(cutout(64, 64, True), "a mug, forest", num_inference_steps=2, guidance_scale=3.0, seed=1).images[0]
    assert _apart(many[0], alone) <= NEAR


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=ON_A_GPU)])
def test_a_plain_image_is_cut_out_on_a_gpu(segmenting_pipeline: CanvasPipeline, device: str):
    image = cutout(64, 64).convert("RGB")
    expected = read_scene(segmenting_pipeline, image, None, None, "hard").product.alpha
    alpha = read_scene(segmenting_pipeline.to(device), image, None, None, "hard").product.alpha
    segmenting_pipeline.to("cpu")
    assert alpha == pytest.approx(expected, abs=0.01)
