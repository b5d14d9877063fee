from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from canvas.train.optimizers import build_optimizer, flatten_optimizer_state, load_optimizer_state
from canvas.train.player import compute_learning_rate_factor
from tests.canvas.train.subject import SPEC, denoiser


def test_warm_up_then_half_a_cosine() -> None:
    spec = replace(SPEC, steps=104, warmup_steps=4, checkpoint_every=104)
    factors = [compute_learning_rate_factor(spec, step) for step in range(105)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[54] == pytest.approx(0.5)
    assert factors[104] == pytest.approx(0)
    assert all(later <= earlier for earlier, later in pairwise(factors[4:]))


def test_constant_stays() -> None:
    spec = replace(SPEC, schedule="constant", warmup_steps=0)
    assert {compute_learning_rate_factor(spec, step) for step in range(12)} == {1.0}


def test_biases_and_norms_do_not_decay() -> None:
    model = denoiser()
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer("adamw", parameters, 0.1, 0.5)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer.step()
    for name, parameter in parameters.items():
        factor = 0.95 if name.endswith("weight") and not name.endswith(".0.weight") else 1.0  # blocks.*.0: norms
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_state_goes_out_and_in(tmp_path) -> None:
    def stepped(loads: dict[str, torch.Tensor] | None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        model = denoiser().to(memory_format=torch.channels_last)
        parameters = dict(model.named_parameters())
        optimizer = build_optimizer("adamw", parameters, 0.1, 0.0)
        if loads is not None:
            load_optimizer_state(optimizer, parameters, loads)
        for step in range(2):
            for name, parameter in parameters.items():
                parameter.grad = None if name == "head.bias" else torch.full_like(parameter, 1.0 + step)
            optimizer.step()
        return flatten_optimizer_state(optimizer, parameters), parameters["stem.weight"].detach()

    tensors, fresh = stepped(None)
    assert not any(name.startswith("head.bias:") for name in tensors)
    assert {name.rpartition(":")[2] for name in tensors} == {"step", "exp_avg", "exp_avg_sq"}
    again, continued = stepped({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    assert again["stem.weight:step"] == 4
    assert not torch.equal(fresh, continued)
