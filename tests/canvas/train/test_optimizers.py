"""Optimizers beside AdamW: what they refuse, which weights they take, and their state in checkpoints."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from canvas.train.loop import fit
from canvas.train.optimizers import (
    LIBRARIES,
    build_optimizer,
    flatten_optimizer_state,
    list_block_parameters,
    set_learning_rate,
)
from canvas.train.spec import Optimizer
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


@pytest.mark.parametrize("name", ["adamw8bit", "muon"])
def test_its_state_is_not_sharded(name: Optimizer) -> None:
    with pytest.raises(ValueError, match=f'"{name}", whose state cannot be sharded: set parallel to ddp or none'):
        replace(SPEC, optimizer=name, parallel="fsdp")


class Mixer(nn.Module):
    """Matrices, a kernel and vectors inside blocks, and matrices outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(3, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Dropout(0.1)) for _ in range(2)
        )
        self.kernel = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1)])
        self.outward = nn.Linear(16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = self.inward(self.kernel[0](pixels).movedim(1, -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.outward(hidden).movedim(-1, 1)


def build_mixer() -> Mixer:
    torch.manual_seed(0)
    return Mixer()


def test_muon_takes_matrices_of_blocks_and_adamw_the_rest() -> None:
    model, twin = build_mixer(), build_mixer()
    parameters = dict(model.named_parameters())
    blocks = list_block_parameters(model, parameters)
    optimizer = build_optimizer("muon", parameters, 0.01, 0.1, blocks)
    plain = build_optimizer("adamw", dict(twin.named_parameters()), 0.01, 0.1)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for own, step in ((model, optimizer), (twin, plain)):
        set_learning_rate(step, 0.02)
        own.eval()(torch.linspace(-1, 1, 96).reshape(2, 3, 4, 4)).square().mean().backward()
        step.step()
    of_muon = {"blocks.0.1.weight", "blocks.1.1.weight"}
    for name, parameter in parameters.items():
        same = torch.equal(parameter, dict(twin.named_parameters())[name])
        assert same == (name not in of_muon), name
        assert optimizer.state[parameter].keys() == (
            {"momentum_buffer"} if name in of_muon else {"step", "exp_avg", "exp_avg_sq"}
        )
    weight = parameters["blocks.0.1.weight"]
    change = weight.detach() - before["blocks.0.1.weight"] * (1 - 0.02 * 0.1)
    singular = torch.linalg.svdvals(change) / (0.02 * 0.2 * 16**0.5)  # of an orthogonal update: about 1 each
    assert singular.max() < 1.3
    assert singular[2] > 0.9


def test_a_killed_run_with_muon_continues_to_the_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = replace(SPEC, optimizer="muon", ema=(0.05, 0.1))

    def train(folder: Path) -> tuple[list[float], dict[str, bytes]]:
        fitted = fit(build_mixer(), denoising, batches(), spec, checkpoints=folder, log=unlogged)
        last = folder / "step-00000012"
        return [loss for _, loss in fitted.losses], {
            file.name: file.read_bytes() for file in last.glob("*.safetensors")
        }

    whole = train(tmp_path)
    shutil.rmtree(tmp_path / "step-00000012")
    assert (tmp_path / "step-00000009").is_dir()
    assert train(tmp_path) == whole


def test_muon_without_matrices_in_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no blocks with matrices to train: set it to adamw in train\.override"):
        fit(denoiser(), denoising, batches(), replace(SPEC, optimizer="muon"), checkpoints=tmp_path, log=unlogged)


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
