"""Hours of encoding a catalogue."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from canvas.shards.spec import EncodingSpec
from lifecycle.declare.params import load_sections
from pipelines.plan.activations import run_denoiser
from pipelines.plan.durations import (
    FLOAT32_SHARE,
    GPU_FLOPS,
    build_encoding_rows,
    build_sampling_rows,
    count_forward_flops,
)
from pipelines.plan.profile import Profile, build_models
from tests.pipelines.plan.conftest import ROOT

SIDE, VECTORS = 64, 10**12


@pytest.fixture(scope="module")
def small():
    """Networks of the demo."""
    return build_models(Profile.read(load_sections("demo", ROOT)))


def hours(spec: EncodingSpec, models, gpus: int = 1) -> float:
    return float(build_encoding_rows(spec, models, SIDE, VECTORS, gpus)[-1][1].removesuffix(" hours").replace(",", ""))


def test_each_mask_is_a_pass_of_the_autoencoder(xl, small):
    spec = replace(xl.encode, precision="bf16")
    with torch.device("meta"):
        once = count_forward_flops(small.vae, torch.zeros(1, 3, SIDE, SIDE), call=small.vae.encode)
    more = hours(replace(spec, random_masks=spec.random_masks + 3), small) - hours(spec, small)
    assert more == pytest.approx(3 * once * VECTORS / GPU_FLOPS / 3600, abs=0.2)


def test_captions_formats_and_gpus_count(xl, small):
    spec = xl.encode
    whole = hours(spec, small)
    assert spec.precision == "fp32"
    assert hours(replace(spec, precision="bf16"), small) == pytest.approx(whole * FLOAT32_SHARE, rel=0.01)
    assert hours(spec, small, gpus=8) == pytest.approx(whole / 8, rel=0.01)
    assert hours(replace(spec, parallel="none"), small, gpus=8) == whole
    assert hours(replace(spec, captions=8), small) > hours(spec, small)
    assert hours(replace(spec, views=3), small) == pytest.approx(3 * whole, rel=0.01)


def test_sampling_takes_two_passes_a_guided_step(xl, unet):
    spec = xl.train_decoder.sampling
    rows = {name: value for name, value, _ in build_sampling_rows(spec, 20_000, 2_000, unet, side=8, gpus=8)}
    expected = 22_000 * 60 * count_forward_flops(unet, call=partial(run_denoiser, unet, 8)) / 100e12 / 3600
    assert rows["all images"] == f"{expected:,.1f} GPU hours"


def test_flops_are_those_of_the_arithmetic():
    with torch.device("meta"):
        layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        assert count_forward_flops(layer, torch.zeros(1, 3, 10, 10)) == 2 * 8 * 3 * 9 * 100
