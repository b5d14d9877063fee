"""AdamW, its parameter groups, and the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from canvas.train.distributed import match_layout
from canvas.train.spec import TrainSpec


def build_adamw(parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), one fused kernel a group; vectors (biases, norms, scales) do not decay."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def compute_learning_rate_factor(spec: TrainSpec, step: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then constant or a half cosine to 0."""
    if step < spec.warmup_steps:
        return (step + 1) / spec.warmup_steps
    if spec.schedule == "constant":
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps))


def flatten_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The optimizer's state as flat `<parameter>:<key>` -> tensor; a parameter that had no gradient yet has none."""
    return {
        f"{name}:{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Inverse of `flatten_optimizer_state`: a moment takes its parameter's memory format and sharding."""
    for flat, value in tensors.items():
        name, _, key = flat.rpartition(":")
        parameter = parameters[name]
        moment = value.shape == parameter.shape and key != "step"
        optimizer.state[parameter][key] = match_layout(parameter, value) if moment else value.to(parameter.device)
