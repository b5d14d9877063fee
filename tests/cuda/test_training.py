"""What only a GPU shows; `make gpu` runs it where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from canvas.device import default_device
from canvas.train.data import PrefetchedBatches, move_batch
from canvas.train.loop import fit
from canvas.train.optimizers import build_optimizer
from tests.canvas import tiny
from tests.canvas.train.subject import SPEC, batches, denoiser, denoising, run, unlogged

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def get_losses(place: Path, **spec: object) -> list[float]:
    return [loss for _, loss in run({"checkpoints": str(place), "spec": spec}).losses]


@pytest.mark.parametrize(
    "spec",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"accumulate": 2},
        {"compile": True},
        {"parallel": "fsdp"},
        {"parallel": "fsdp", "accumulate": 2, "compile": True},
    ],
    ids=str,
)
def test_it_trains_as_plainly(tmp_path: Path, spec: dict[str, object]) -> None:
    plain = get_losses(tmp_path / "plain")
    assert get_losses(tmp_path / "other", **spec) == pytest.approx(plain, rel=0.05, abs=2e-3)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole = get_losses(tmp_path)
    (tmp_path / "step-00000012").rename(tmp_path / "dropped")
    assert get_losses(tmp_path) == pytest.approx(whole, abs=1e-5)


def test_batches_wait_in_pinned_memory() -> None:
    batch = PrefetchedBatches(batches())(0, 0, 1)
    assert batch["pixels"].is_pinned()
    assert move_batch(batch, default_device())["pixels"].is_cuda


def test_float32_multiplies_in_tf32() -> None:
    default_device()
    assert torch.backends.cuda.matmul.allow_tf32


def test_checkpointed_blocks_need_less_memory() -> None:
    def measure_peak(checkpointed: bool) -> int:
        unet = tiny.denoiser().cuda().train()
        if checkpointed:
            unet.enable_gradient_checkpointing()
        given = {name: tensor.cuda() for name, tensor in tiny.conditions(64).items()}
        torch.cuda.reset_peak_memory_stats()
        output = unet(
            given["latents"],
            torch.tensor(500.0),
            given["text_states"],
            added_cond_kwargs={"text_embeds": given["text_pooled"], "time_ids": given["sizes"]},
        ).sample
        output.square().mean().backward()
        return torch.cuda.max_memory_allocated()

    assert measure_peak(True) < 0.8 * measure_peak(False)


def test_moments_of_8_bits_train_and_go_on(tmp_path: Path) -> None:
    try:
        build_optimizer("adamw8bit", dict(denoiser().cuda().named_parameters()), 0.1, 0.0)
    except ValueError as error:
        pytest.skip(str(error))
    spec = replace(SPEC, optimizer="adamw8bit")
    whole = fit(denoiser(), denoising, batches(), spec, checkpoints=tmp_path, log=unlogged).losses
    (tmp_path / "step-00000012").rename(tmp_path / "dropped")
    again = fit(denoiser(), denoising, batches(), spec, checkpoints=tmp_path, log=unlogged).losses
    assert [loss for _, loss in again] == pytest.approx([loss for _, loss in whole], abs=1e-4)
