"""Optimizers whose moments have 8 bits: refused where no library has one, and their state in checkpoints."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from canvas.train.loop import fit
from canvas.train.optimizers import LIBRARIES, build_optimizer, flatten_optimizer_state, set_learning_rate
from tests.canvas.train.subject import SPEC, batches, denoiser, denoising, unlogged


def test_without_a_library_it_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in LIBRARIES.values():
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match="needs bitsandbytes or torchao: install one of them, or set"):
        fit(
            denoiser(),
            denoising,
            batches(),
            replace(SPEC, optimizer="adamw8bit"),
            checkpoints=tmp_path,
            log=unlogged,
        )


def test_its_state_is_not_sharded() -> None:
    with pytest.raises(ValueError, match="whose state cannot be sharded: set parallel to ddp or none"):
        replace(SPEC, optimizer="adamw8bit", parallel="fsdp")


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_rates_are_set_whether_number_or_tensor(rate: float | torch.Tensor) -> None:
    optimizer = build_optimizer("adamw", dict(denoiser().named_parameters()), 0.1, 0.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    set_learning_rate(optimizer, 0.5)
    assert all(float(group["lr"]) == 0.5 for group in optimizer.param_groups)


def test_moments_of_8_bits_go_out_and_in(tmp_path: Path) -> None:
    pytest.importorskip("torchao.optim")

    def train(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 96, 3, padding=1), torch.nn.Conv2d(96, 3, 3, padding=1))
        spec = replace(SPEC, optimizer="adamw8bit")
        fitted = fit(model, denoising, batches(), spec, checkpoints=folder, log=unlogged)
        return [loss for _, loss in fitted.losses], {name: x.detach() for name, x in model.named_parameters()}

    losses, weights = train(tmp_path)
    (tmp_path / "step-00000012").rename(tmp_path / "dropped")
    assert train(tmp_path)[0] == pytest.approx(losses, abs=1e-6)
    assert weights["0.weight"].numel() < 4096  # torchao keeps those whole


def test_a_count_that_is_no_tensor_is_saved_as_one() -> None:
    model = denoiser()
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer("adamw", parameters, 0.1, 0.0)
    optimizer.state[parameters["stem.weight"]] = {"step": 3}  # as bitsandbytes counts
    assert flatten_optimizer_state(optimizer, parameters)["stem.weight:step"].item() == 3
