"""The denoiser's stages under FSDP2: two processes on gloo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser.loading import load_denoiser
from canvas.denoiser.lora import load_lora
from tests.canvas.denoiser.subject import LORA, build, trained
from tests.canvas.train.two_ranks import run_in_two_ranks


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes trained every stage's denoiser."""
    folder = tmp_path_factory.mktemp("sharded")
    run_in_two_ranks("tests.canvas.denoiser.subject", str(folder))
    return folder


@pytest.mark.parametrize("stage", LORA)
def test_two_processes_train_the_denoiser_that_one_trains(sharded: Path, stage: str, tmp_path: Path) -> None:
    alone, losses = trained(stage, "none", tmp_path)
    assert json.loads((sharded / stage / "losses.json").read_text()) == pytest.approx(losses, abs=1e-5)
    model = load_lora(build(stage), sharded / stage / "lora") if LORA[stage] else load_denoiser(sharded / stage)
    weights = model.state_dict()
    apart = torch.cat([(weights[name] - weight).abs().flatten() for name, weight in alone.state_dict().items()])
    # Adam takes a full step of 1e-3 for the rounding of a gradient near zero, so single weights may be further apart.
    assert apart.mean() < 1e-6
    assert apart.max() < 1e-3


def test_what_was_sharded_is_saved_whole_and_painted_with_at_once(tmp_path: Path) -> None:
    """A world of one shards, too; afterwards the caller's model is an ordinary one."""
    unet, _ = trained("inpaint", "fsdp", tmp_path)
    assert type(unet) is UNet2DConditionModel
    unet.save_pretrained(tmp_path / "unet")
    again = UNet2DConditionModel.from_pretrained(tmp_path / "unet", use_safetensors=True)
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in unet.state_dict().items())
