"""The loop: an objective, parameters and data in; a trained model out."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from canvas.train.data import B, Batches, move_batch
from canvas.train.distributed import World, gather_weights, join_world, sync_gradients
from canvas.train.draws import Draws, mix_seed
from canvas.train.ema import Averages, Snapshots
from canvas.train.optimizers import set_learning_rate
from canvas.train.player import Adversary, M, Objective, build_players, compute_learning_rate_factor
from canvas.train.precision import autocast, get_autocast_dtype, resolve_precision
from canvas.train.progress import SNAPSHOTS, Progress, restore_progress, save_progress
from canvas.train.spec import TrainSpec
from canvas.train.state import compute_run_identity, deterministic_mode, eval_mode, measure_peak_memory, seed_generators

FINITE_METRICS = ("loss", "grad_norm")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a run leaves beside the trained model."""

    losses: list[tuple[int, float]]  # (steps done, mean loss of the log_every steps before), from the first step on
    images_per_second: float  # over all ranks; median of the log windows, without samples and checkpoints
    peak_memory_bytes: int  # of this process: CUDA's allocator, or the resident set
    snapshots: Snapshots | None  # of weight averages; None: no `ema` was asked for


class MetricWindow:
    """Metrics of all passes of the steps since the last log, left on their device so that no step waits to be read."""

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[int, torch.Tensor]]] = {}  # (step, value)

    def add(self, step: int, name: str, value: torch.Tensor) -> None:
        self._values.setdefault(name, []).append((step, value.detach().float()))

    def read(self, world: World) -> tuple[dict[str, float], tuple[int, str, float] | None]:
        """Return means over steps and ranks, and the first (step, name, value) of a loss or gradient norm not finite.

        Empties the window. Every rank must have added the same names equally often.
        """
        names = sorted(self._values)
        stacked = torch.stack([value for name in names for _, value in self._values[name]])
        rows = iter(world.reduce_mean(stacked).tolist())
        series = {name: [(step, next(rows)) for step, _ in self._values[name]] for name in names}
        self._values = {}
        broken = [
            (step, name, value)
            for name in names
            if name.endswith(FINITE_METRICS)
            for step, value in series[name]
            if not math.isfinite(value)
        ]
        means = {name: math.fsum(value for _, value in pairs) / len(pairs) for name, pairs in series.items()}
        # the loss of a step comes before its gradient, and is the better name for what broke
        return means, min(broken, key=lambda row: (row[0], not row[1].endswith("loss")), default=None)


def fit(
    model: M,
    objective: Objective[M, B],
    batches: Batches[B],
    spec: TrainSpec,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[M, int], None] | None = None,
    adversary: Adversary | None = None,
    stop: Callable[[M, int], bool] | None = None,
) -> TrainResult:
    """Train those parameters of `model` that require gradients, in place; continue from `checkpoints` if it can.

    A run that was killed and called again gives, on CPU, the same bits as one that was not: batches, draws, dropout
    and learning rate are functions of the step. Under fsdp a copy of `model` is sharded and trained, and its weights
    are put into `model` at the end: no caller meets a shard.

    Args:
        model: Frozen parameters stay as they are. It goes to the device of the training, and stays there.
        objective: Model, batch and draws -> the loss, and figures by name.
        batches: Step, rank and number of ranks -> the rank's slice of a batch.
        spec: Steps, batch size, optimizer, precision and the rest.
        checkpoints: Directory of this run's states.
        log: Gets the means over `log_every` steps, and the step; on rank 0.
        sample: Gets the model in eval mode without gradients, under the autocast of training (sharded weights are
            gathered in its precision), and the step; on rank 0 alone, or, under fsdp, on every rank (its forward is
            collective, and must be `model(...)` itself, as in the objective).
        adversary: A second network that is trained in turns with `model`.
        stop: Is asked, with the model and the steps done, before every step of a run of one process; True ends
            training there.

    Returns:
        Losses by step, speed, peak of memory, and where the averages of the weights lie.

    Raises:
        ValueError: The loss or the gradient is not finite (naming step and pins; that state is never saved), or
            `checkpoints` is of another run; the batch size is no multiple of ranks and accumulated passes.
    """
    with join_world(spec.parallel) as world, deterministic_mode(world.device):
        if spec.batch_size % (world.size * spec.accumulate):
            raise ValueError(
                f"batch_size is {spec.batch_size}: it must be a multiple of {world.size} processes x "
                f"{spec.accumulate} accumulated passes"
            )
        samples = spec.batch_size // world.size // spec.accumulate  # of one pass
        assert stop is None or world.size == 1, "ranks could disagree on when to stop"
        spec = replace(spec, precision=resolve_precision(spec.precision, world.device))
        dtype = get_autocast_dtype(spec.precision)
        scaler = torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16)

        if spec.parallel == "fsdp":
            model.to("cpu")  # until the end; its copy goes to the devices shard by shard
        trained = copy.deepcopy(model) if spec.parallel == "fsdp" else model
        title = type(model).__name__  # before it is wrapped
        players = build_players(trained, objective, adversary, spec, world)
        averages = Averages(players[0].parameters, spec.ema)
        this_run = compute_run_identity(spec, {player.name: player.tensors for player in players})
        progress = Progress(identity=this_run, players=players, averages=averages, scaler=scaler)
        restore_progress(checkpoints, progress, world)

        here = world.rank == 0 or spec.parallel == "fsdp"  # where samples are drawn
        window = MetricWindow()
        first_step = progress.steps_done
        bar = tqdm(total=spec.steps, initial=first_step, desc=title, unit="step", disable=world.rank > 0)
        clock = time.perf_counter()
        for step in range(first_step, spec.steps):
            if stop is not None and stop(trained, step):
                break
            seed_generators(mix_seed(spec.seed, step, world.rank), world.device)  # dropout and its like
            batch = move_batch(batches(step, world.rank, world.size), world.device, spec.channels_last)
            passes: list[dict[str, object]] = [
                {name: cast(torch.Tensor, column)[at * samples : (at + 1) * samples] for name, column in batch.items()}
                for at in range(spec.accumulate)
            ]
            factor = compute_learning_rate_factor(spec, step)

            for turn, player in enumerate(players):
                if step < player.start_step:
                    continue
                for parameter in player.opponent_parameters:
                    parameter.requires_grad_(False)
                set_learning_rate(player.optimizer, player.learning_rate * factor)

                for at, columns in enumerate(passes):
                    first = (world.rank * spec.accumulate + at) * samples
                    draws = Draws(spec.seed, step, first, samples, world.device, stream=turn)
                    with sync_gradients(player.objective_module, last=at == spec.accumulate - 1):
                        with autocast(dtype, world.device):
                            loss, outputs = player.objective_module(columns, draws)
                        scaler.scale(loss / spec.accumulate).backward()
                    window.add(step, f"{player.name}loss", loss)
                    for name, output in outputs.items():
                        if output.ndim == 0:
                            window.add(step, f"{player.name}{name}", output)
                        else:
                            columns[name] = output

                scaler.unscale_(player.optimizer)
                norm = _compute_gradient_norm(player.parameters.values())
                if spec.clip_norm is not None:
                    torch.nn.utils.clip_grads_with_norm_(player.parameters.values(), spec.clip_norm, norm)
                if scaler.is_enabled():
                    norm = norm.nan_to_num(0.0, 0.0)  # the scaler skips such a step and halves its scale
                window.add(step, f"{player.name}grad_norm", norm)
                scaler.step(player.optimizer)
                player.optimizer.zero_grad(set_to_none=True)
                for parameter in player.opponent_parameters:
                    parameter.requires_grad_(True)
            scaler.update()

            progress.steps_done = done = step + 1
            averages.update(done)
            bar.update()
            if done % spec.log_every == 0:
                means, broken = window.read(world)
                if broken is not None:
                    raise ValueError(_format_divergence(*broken, batches, spec))
                rate = spec.log_every * spec.batch_size / (time.perf_counter() - clock)
                progress.rates.append(rate)
                progress.losses.append((done, means["loss"]))
                bar.set_postfix_str(f"loss {means['loss']:.4g}, {rate:.3g} images/s", refresh=False)
                if world.rank == 0:
                    log({**means, "learning_rate": spec.learning_rate * factor, "images_per_second": rate}, done)
                if done % spec.checkpoint_every == 0:
                    save_progress(checkpoints, progress, world)
                if sample is not None and here and done % spec.sample_every == 0:
                    with eval_mode(trained), autocast(dtype, world.device):
                        sample(trained, done)
                clock = time.perf_counter()
        bar.close()
        if trained is not model:
            gather_weights(model, trained, world.device)
        return TrainResult(
            losses=progress.losses,
            images_per_second=statistics.median(progress.rates or [0.0]),  # none of a run that is stopped at once
            peak_memory_bytes=measure_peak_memory(world.device),
            snapshots=Snapshots(checkpoints / SNAPSHOTS) if spec.ema else None,
        )


def _compute_gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Global 2-norm of the gradients there are."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _format_divergence(
    step: int, quantity: str, value: float, batches: Batches[Mapping[str, object]], spec: TrainSpec
) -> str:
    pins = cast(list[str], batches(step, 0, 1)["pin_id"])
    listed = ", ".join(pins[:16]) + (f" and {len(pins) - 16} more" if len(pins) > 16 else "")
    return (
        f"{quantity} is {value} at step {step + 1}, on pins {listed}: look at these pins, lower learning_rate "
        f"({spec.learning_rate}) or clip_norm ({spec.clip_norm}), or raise precision ({spec.precision})"
    )
