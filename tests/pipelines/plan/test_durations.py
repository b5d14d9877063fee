"""Hours of encoding a catalogue."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from canvas.shards.spec import EncodingSpec
from lifecycle.declare.params import load_sections
from pipelines.plan.durations import FLOAT32_SHARE, build_encoding_rows
from pipelines.plan.gpus import GPU_FLOPS, count_forward_flops
from pipelines.plan.profile import build_models, read_specs, reader_of
from tests.pipelines.plan.conftest import ROOT, RUN

SIDE, VECTORS = 64, 10**12


@pytest.fixture(scope="module")
def small():
    """Networks of the demo."""
    section = reader_of(load_sections("demo", ROOT), "demo")
    return build_models(read_specs(section), replace(RUN, side=SIDE))


def hours(spec: EncodingSpec, models, gpus: int = 1) -> float:
    return float(build_encoding_rows(spec, models, SIDE, VECTORS, gpus)[-1][1].removesuffix(" hours").replace(",", ""))


def test_each_mask_is_a_pass_of_the_autoencoder(xl, small):
    spec = replace(xl("encode", EncodingSpec), precision="bf16")
    with torch.device("meta"):
        once = count_forward_flops(small.vae, torch.zeros(1, 3, SIDE, SIDE), call=small.vae.encode)
    more = hours(replace(spec, random_masks=spec.random_masks + 3), small) - hours(spec, small)
    assert more == pytest.approx(3 * once * VECTORS / GPU_FLOPS / 3600, abs=0.2)


def test_captions_formats_and_gpus_count(xl, small):
    spec = xl("encode", EncodingSpec)
    whole = hours(spec, small)
    assert spec.precision == "fp32"
    assert hours(replace(spec, precision="bf16"), small) == pytest.approx(whole * FLOAT32_SHARE, rel=0.01)
    assert hours(spec, small, gpus=8) == pytest.approx(whole / 8, rel=0.01)
    assert hours(replace(spec, parallel="none"), small, gpus=8) == whole
    assert hours(replace(spec, captions=8), small) > hours(spec, small)
    assert hours(replace(spec, views=3), small) == pytest.approx(3 * whole, rel=0.01)
