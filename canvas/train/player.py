"""A model in training: its objective, its wrapper, its optimizer and the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from canvas.train.compiling import compile_blocks
from canvas.train.data import B
from canvas.train.distributed import World, replicate_model, shard_model
from canvas.train.draws import Draws
from canvas.train.optimizers import build_optimizer, list_block_parameters
from canvas.train.precision import get_autocast_dtype
from canvas.train.spec import TrainSpec

M = TypeVar("M", bound=nn.Module)

Objective = Callable[[M, B, Draws], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
"""Scalar loss, the mean over the samples of a batch, and what else to report.

Scalars are logged as means; any other tensor, [samples, ...], becomes, detached, a column of the adversary's batch.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adversary:
    """A second model, trained in alternation on batches that the first objective's outputs were added to.

    The first objective reaches the adversary's `model` by itself; while the one trains, the other is frozen. Before
    `start_step` the adversary rests: the first objective tells by `draws.step` whether it counts.
    """

    model: nn.Module
    objective: Objective[Any, Any]
    start_step: int
    learning_rate: float


class ObjectiveModule(nn.Module):
    """A model with its objective as one module, so that a wrapper sees whatever part of the model is called."""

    def __init__(self, model: nn.Module, objective: Objective[Any, Any]) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Mapping[str, object], draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, outputs = self.objective(self.model, batch, draws)
        return loss, {name: output.detach() for name, output in outputs.items()}


@dataclass(kw_only=True, slots=True)
class Player:
    """A model in training."""

    name: str  # prefix of its metrics and files
    model: nn.Module
    objective_module: nn.Module  # the model with its objective, wrapped
    parameters: dict[str, nn.Parameter]  # those that require gradients
    tensors: dict[str, torch.Tensor]  # what a checkpoint holds: `parameters` and buffers
    optimizer: torch.optim.Optimizer
    learning_rate: float  # peak
    start_step: int
    opponent_parameters: list[nn.Parameter] = field(default_factory=list)


def build_players(
    model: nn.Module, objective: Objective[Any, Any], adversary: Adversary | None, spec: TrainSpec, world: World
) -> list[Player]:
    """Return the model and, if there is one, the adversary: each trains while the other is frozen."""
    players = [_build_player("", model, objective, spec.learning_rate, 0, spec, world)]
    if adversary is not None:
        rate, start = adversary.learning_rate, adversary.start_step
        players.append(_build_player("adversary_", adversary.model, adversary.objective, rate, start, spec, world))
        players[0].opponent_parameters = list(players[1].parameters.values())
        players[1].opponent_parameters = list(players[0].parameters.values())
    return players


def _build_player(
    name: str,
    model: nn.Module,
    objective: Objective[Any, Any],
    learning_rate: float,
    start_step: int,
    spec: TrainSpec,
    world: World,
) -> Player:
    """Wrap `model`, on its device, as `spec.parallel` says, with an optimizer for what requires gradients."""
    sharded = spec.parallel == "fsdp" and not name  # a discriminator is small: it is replicated
    model.train()
    if spec.gradient_checkpointing and not name:
        checkpoint_blocks(model)
    if spec.compile:
        compile_blocks(model)  # before they are sharded, so that gathering weights stays outside of what is compiled
    if sharded:
        # FSDP2 needs contiguous parameters: only the inputs are channels_last
        shard_model(model, get_autocast_dtype(spec.precision), world)
    else:
        model.to(world.device)
        if spec.channels_last:
            model.to(memory_format=torch.channels_last)
    parameters = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has nothing to train: no parameter requires a gradient")
    module = ObjectiveModule(model, objective)
    persistent = model.state_dict().keys()
    buffers = {key: buffer for key, buffer in model.named_buffers() if key in persistent}
    return Player(
        name=name,
        model=model,
        objective_module=module if sharded else replicate_model(module, world),
        parameters=parameters,
        tensors={**parameters, **buffers},
        optimizer=build_optimizer(
            "adamw" if name and spec.optimizer == "muon" else spec.optimizer,  # a discriminator has no matrices
            parameters,
            learning_rate,
            spec.weight_decay,
            list_block_parameters(model, parameters),
        ),
        learning_rate=learning_rate,
        start_step=start_step,
    )


def checkpoint_blocks(model: nn.Module) -> None:
    """Let the model's blocks keep their inputs alone and run again in the backward pass (Chen et al. 2016). Raises
    `ValueError` for a model that is none of diffusers' or cannot do it."""
    if not getattr(model, "_supports_gradient_checkpointing", False):
        raise ValueError(
            f"gradient_checkpointing is true, but {type(model).__name__} cannot run its blocks again: set it to false "
            "in train.override"
        )
    model.enable_gradient_checkpointing()  # type: ignore[operator]


def compute_learning_rate_factor(spec: TrainSpec, step: int) -> float:
    """Return the share of the peak rate at `step` (from 0): linear warm-up, then constant or a half cosine to 0."""
    if step < spec.warmup_steps:
        return (step + 1) / spec.warmup_steps
    if spec.schedule == "constant":
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps))
