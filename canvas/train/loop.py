"""The loop: an objective, parameters and data in; a trained model out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from canvas.train.checkpoint import drop_old, last_whole, read_whole, step_directory, write_whole
from canvas.train.data import Batch, Batches
from canvas.train.distributed import World, gathered, joined, laid_out_like, replicated, shard, synchronised
from canvas.train.draws import Draws
from canvas.train.ema import Averages, Snapshots
from canvas.train.optimizer import adamw, learning_rate_factor, load_optimizer_tensors, optimizer_tensors
from canvas.train.spec import TrainSpec
from canvas.train.state import evaluating, identity, peak_memory_bytes, reproducible, saved_tensors
from canvas.train.window import Window

Objective = Callable[[nn.Module, Batch, Draws], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
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
    objective: Objective
    start_step: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a run leaves beside the trained model."""

    losses: list[tuple[int, float]]  # (steps done, mean loss of the log_every steps before), from the first step on
    images_per_second: float  # over all ranks; median of the log windows, without samples and checkpoints
    peak_memory_bytes: int  # of this process: CUDA's allocator, or the resident set
    snapshots: Snapshots | None  # of weight averages; None: no `ema` was asked for


class Step(nn.Module):
    """A model with its objective as one module, so that a wrapper sees whatever part of the model is called."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, outputs = self.objective(self.model, batch, draws)
        return loss, {name: output.detach() for name, output in outputs.items()}


@dataclass(kw_only=True, slots=True)
class Player:
    """A model in training: wrapped, with its optimizer."""

    name: str  # prefix of its metrics and tensors
    step: nn.Module
    parameters: dict[str, nn.Parameter]
    tensors: dict[str, torch.Tensor]  # what a checkpoint holds: `parameters` and buffers
    optimizer: torch.optim.AdamW
    learning_rate: float
    start_step: int
    frozen_meanwhile: list[nn.Parameter] = field(default_factory=list)


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    spec: TrainSpec,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[nn.Module, int], None] | None = None,
    adversary: Adversary | None = None,
) -> Fitted:
    """Train those parameters of `model` that require gradients, in place; continue from `checkpoints` if it can.

    A run that was killed and called again gives, on CPU, the same bits as one that was not: batches, draws, dropout
    and learning rate are functions of the step. `log` gets the means over `log_every` steps, on rank 0. `sample` gets
    the model in eval mode without gradients; on rank 0 alone, or, under fsdp, on every rank (its forward is
    collective, and must be `model(...)` itself, as in the objective). `ValueError` in one sentence: the loss or the
    gradient is not finite (naming step and pins; that state is never saved), or `checkpoints` is of another run.
    """
    with joined(spec.parallel) as world, reproducible(world.device):
        if spec.batch_size % (world.size * spec.accumulate):
            raise ValueError(
                f"batch_size is {spec.batch_size}: it must be a multiple of {world.size} processes x "
                f"{spec.accumulate} accumulated passes"
            )
        samples = spec.batch_size // world.size // spec.accumulate  # of one pass
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.precision)
        scaler = torch.amp.GradScaler(world.device.type, enabled=spec.precision == "fp16")

        players = [_player("", model, objective, spec.learning_rate, 0, spec, world)]
        if adversary is not None:
            players.append(
                _player(
                    "adversary_",
                    adversary.model,
                    adversary.objective,
                    adversary.learning_rate,
                    adversary.start_step,
                    spec,
                    world,
                )
            )
        for player in players:
            player.frozen_meanwhile = [p for other in players if other is not player for p in other.parameters.values()]
        averages = Averages(players[0].parameters, spec.ema)
        if spec.compile:
            for player in players:
                _bare(player.step).compile()

        this_run = identity(spec, {player.name: player.tensors for player in players})
        done, state = _resume(checkpoints, this_run, players, averages, scaler, world)
        losses: list[tuple[int, float]] = [(step, loss) for step, loss in state.get("losses", [])]
        rates: list[float] = state.get("rates", [])

        window = Window()
        bar = tqdm(
            total=spec.steps, initial=done, desc=type(model).__name__, unit="step", disable=world.rank > 0, smoothing=0.05
        )
        clock = time.perf_counter()
        for step in range(done, spec.steps):
            torch.manual_seed(Draws.seed_of(spec.seed, step, world.rank))  # dropout and its like
            batch = _on_device(batches(step, world.rank, world.size), world.device, spec.channels_last)
            passes = [_rows(batch, at * samples, samples) for at in range(spec.accumulate)]
            factor = learning_rate_factor(spec, step)

            for turn, player in enumerate(players):
                if step < player.start_step:
                    continue
                for parameter in player.frozen_meanwhile:
                    parameter.requires_grad_(False)
                for group in player.optimizer.param_groups:
                    group["lr"] = player.learning_rate * factor

                for at, columns in enumerate(passes):
                    first = world.rank * samples * spec.accumulate + at * samples
                    draws = Draws(spec.seed, step, first, samples, world.device, stream=turn)
                    with synchronised(player.step, last=at == spec.accumulate - 1):
                        with torch.autocast(world.device.type, half, enabled=half is not None):
                            loss, outputs = player.step(columns, draws)
                        scaler.scale(loss / spec.accumulate).backward()
                    window.add(step, f"{player.name}loss", loss)
                    for name, output in outputs.items():
                        if output.ndim == 0:
                            window.add(step, f"{player.name}{name}", output)
                        else:
                            passes[at] = {**passes[at], name: output}

                scaler.unscale_(player.optimizer)
                gradients = [p.grad for p in player.parameters.values() if p.grad is not None]
                norm = _total_norm(gradients)
                if spec.clip_norm is not None:
                    torch.nn.utils.clip_grads_with_norm_(player.parameters.values(), spec.clip_norm, norm)
                if scaler.is_enabled():
                    norm = norm.nan_to_num(0.0, 0.0)  # the scaler skips such a step and halves its scale
                window.add(step, f"{player.name}grad_norm", norm)
                scaler.step(player.optimizer)
                player.optimizer.zero_grad(set_to_none=True)
                for parameter in player.frozen_meanwhile:
                    parameter.requires_grad_(True)
            scaler.update()

            done = step + 1
            averages.update(done)
            bar.update()
            if done % spec.log_every == 0:
                means, not_finite = window.read(world)
                if not_finite is not None:
                    raise ValueError(_divergence(*not_finite, batches, spec))
                rate = spec.log_every * spec.batch_size / (time.perf_counter() - clock)
                rates.append(rate)
                losses.append((done, means["loss"]))
                bar.set_postfix_str(f"loss {means['loss']:.4g}, {rate:.3g} images/s", refresh=False)
                if world.rank == 0:
                    log({**means, "learning_rate": spec.learning_rate * factor, "images_per_second": rate}, done)
                if done % spec.checkpoint_every == 0:
                    _save(checkpoints, done, this_run, players, averages, scaler, losses, rates, world)
                if sample is not None and done % spec.sample_every == 0 and (world.rank == 0 or spec.parallel == "fsdp"):
                    with evaluating(model):
                        sample(model, done)
                clock = time.perf_counter()
        bar.close()
        return Fitted(
            losses=losses,
            images_per_second=statistics.median(rates),
            peak_memory_bytes=peak_memory_bytes(world.device),
            snapshots=Snapshots(checkpoints / "ema") if spec.ema else None,
        )


def _player(
    name: str,
    model: nn.Module,
    objective: Objective,
    learning_rate: float,
    start_step: int,
    spec: TrainSpec,
    world: World,
) -> Player:
    """`model`, on its device and wrapped as `spec.parallel` says, with an optimizer for what requires gradients."""
    sharded = spec.parallel == "fsdp" and not name  # a discriminator is small: it is replicated
    model.train()
    if sharded:
        shard(model, spec.precision)  # wants contiguous parameters: only the inputs are channels_last
    else:
        model.to(world.device, memory_format=torch.channels_last if spec.channels_last else torch.preserve_format)
    parameters = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has nothing to train: no parameter requires a gradient")
    step = Step(model, objective)
    return Player(
        name=name,
        step=step if sharded else replicated(step, world),
        parameters=parameters,
        tensors=saved_tensors(model, parameters),
        optimizer=adamw(parameters, learning_rate, spec.weight_decay),
        learning_rate=learning_rate,
        start_step=start_step,
    )


def _bare(step: nn.Module) -> nn.Module:
    inner = step if isinstance(step, Step) else step.module
    assert isinstance(inner, Step)
    return inner.model


def _on_device(batch: Batch, device: torch.device, channels_last: bool) -> Batch:
    moved: dict[str, torch.Tensor | list[str]] = {}
    for name, column in batch.items():
        if isinstance(column, torch.Tensor):
            column = column.to(device, non_blocking=True)
            if channels_last and column.ndim == 4:
                column = column.contiguous(memory_format=torch.channels_last)
        moved[name] = column
    return moved


def _rows(batch: Batch, first: int, count: int) -> Batch:
    return {name: column[first : first + count] for name, column in batch.items()}


def _total_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm


def _divergence(step: int, quantity: str, value: float, batches: Batches, spec: TrainSpec) -> str:
    pins = batches(step, 0, 1)["pin_id"]
    shown = ", ".join(pins[:16]) + (f" and {len(pins) - 16} more" if len(pins) > 16 else "")
    return (
        f"{quantity} is {value} at step {step + 1}, on pins {shown}: look at these pins, lower learning_rate "
        f"({spec.learning_rate}) or clip_norm ({spec.clip_norm}), or train in fp32 or bf16 (precision is {spec.precision})"
    )


def _save(
    checkpoints: Path,
    done: int,
    this_run: Mapping[str, Any],
    players: list[Player],
    averages: Averages,
    scaler: torch.amp.GradScaler,
    losses: list[tuple[int, float]],
    rates: list[float],
    world: World,
) -> None:
    """Snapshots of the averages first: a checkpoint is whole only if those of its step are."""
    snapshots = {str(length): gathered(tensors, world) for length, tensors in averages.tensors.items()}
    if snapshots and world.rank == 0:
        write_whole(step_directory(checkpoints / "ema", done), snapshots, {})
    del snapshots
    files = {}
    for player in players:
        files[f"{player.name}model"] = gathered(player.tensors, world)
        files[f"{player.name}optimizer"] = gathered(optimizer_tensors(player.optimizer, player.parameters), world)
    if world.rank == 0:
        state = {"run": this_run, "losses": losses, "rates": rates, "scaler": scaler.state_dict()}
        write_whole(step_directory(checkpoints, done), files, state)
        drop_old(checkpoints, done)
    world.wait()


def _resume(
    checkpoints: Path,
    this_run: Mapping[str, Any],
    players: list[Player],
    averages: Averages,
    scaler: torch.amp.GradScaler,
    world: World,
) -> tuple[int, dict[str, Any]]:
    """Steps done and the state of the last whole checkpoint, which is loaded; (0, {}) if there is none."""
    found = last_whole(checkpoints)
    if found is None:
        return 0, {}
    done, files, state = found
    changed = [key for key in this_run if state["run"].get(key) != this_run[key]]
    if changed:
        raise ValueError(
            f"{checkpoints} holds checkpoints of another run: "
            + ", ".join(f"{key} was {state['run'].get(key)} and is {this_run[key]}" for key in changed)
            + "; remove the directory to start anew"
        )
    with torch.no_grad():
        for player in players:
            for name, tensor in player.tensors.items():
                tensor.copy_(laid_out_like(tensor, files[f"{player.name}model"][name]))
            load_optimizer_tensors(player.optimizer, player.parameters, files[f"{player.name}optimizer"])
        if averages.tensors:
            snapshots, _ = read_whole(step_directory(checkpoints / "ema", done))
            for length in averages.tensors:
                averages.load(length, snapshots[str(length)])
    scaler.load_state_dict(state["scaler"])
    return done, state
