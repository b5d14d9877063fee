"""Denoiser, shards and objective in; a denoiser with its best average, and its held-out loss out.

What the stages base, inpaint, backdrop and engaged share; they differ in rows, masks, and which weights are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from canvas.denoiser.lora import fold_lora_weights
from canvas.denoiser.objective import INPAINT_COLUMNS, TEXT_TO_IMAGE_COLUMNS, DenoisingObjective
from canvas.denoiser.spec import HeldOutSpec
from canvas.shards.rows import ShardRow, ShardRows, group_by_bucket
from canvas.train.data import Batch, PrefetchedBatches, move_batch
from canvas.train.distributed import SINGLE_PROCESS, World, join_world
from canvas.train.draws import Draws
from canvas.train.ema import load_best
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.train.state import eval_mode

MaskKind = Literal["none", "random", "product"]
"""Which masks a denoiser is trained with; none: text-to-image."""

HELD_OUT_SEED = 1
"""Of the times and noises of the held-out loss: the same for every model, so that their losses compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRun:
    """What a run leaves beside the trained denoiser."""

    fitted: TrainResult
    pins: int  # trained on, one or more views of each
    held_out_pins: int
    held_out_losses: dict[str, float]  # before training, and after by length of the average ("last": none)
    average: str  # the one that was chosen

    def figures(self, denoiser: nn.Module) -> dict[str, Any]:
        """Numbers for a stage's metrics."""
        return {
            "held_out_loss": self.held_out_losses[self.average],
            "held_out_losses": self.held_out_losses,
            "average": 0.0 if self.average == "last" else float(self.average),
            "pins": self.pins,
            "held_out_pins": self.held_out_pins,
            "parameters": sum(weight.numel() for weight in denoiser.parameters()),
            "trained_parameters": sum(weight.numel() for weight in denoiser.parameters() if weight.requires_grad),
            "images_per_second": self.fitted.images_per_second,
            "peak_memory_mb": self.fitted.peak_memory_bytes / 1e6,
        }

    def curve(self) -> str:
        """Losses by step as CSV."""
        return "step,loss\n" + "".join(f"{step},{loss:.6g}\n" for step, loss in self.fitted.losses)


def train_denoiser(
    denoiser: UNet2DConditionModel,
    objective: DenoisingObjective,
    shards: ShardRows,
    spec: TrainSpec,
    held_out: HeldOutSpec,
    *,
    masks: MaskKind,
    wanted: Callable[[ShardRow], bool],
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[nn.Module, int], None] | None = None,
    folded: bool = False,
) -> DenoiserRun:
    """Train those weights of `denoiser` that require gradients on the `wanted` rows of the train split, and leave in
    it the average whose loss on the wanted rows of the other splits is lowest. `folded`: of its LoRAs, as
    `canvas.denoiser.lora.fold_lora_weights` says."""
    columns = map_columns(masks)
    chosen = [row for row in shards.index if wanted(row) and row.split == "train"]
    rest = [row for row in shards.index if wanted(row) and row.split != "train"]
    batches = shards.build_batches(chosen, columns, spec.batch_size, spec.seed)
    scored = build_held_out_batches(shards, rest, held_out, columns)

    with join_world(spec.parallel) as world:

        def score(model: nn.Module) -> float:
            return compute_held_out_loss(model, objective, scored, held_out.repeats, world)

        losses = {"before": score(denoiser.to(world.device))}
        with fold_lora_weights(denoiser) if folded else nullcontext():
            fitted = fit(
                denoiser,
                objective,
                PrefetchedBatches(batches),
                spec,
                checkpoints=checkpoints,
                log=log,
                sample=sample,
            )
        losses["last"], average = score(denoiser), "last"
        if fitted.snapshots is not None:
            by_length = load_best(denoiser, fitted.snapshots, held_out.averages, score)
            losses |= {f"{length:g}": loss for length, loss in by_length.items()}
            average = f"{min(by_length, key=by_length.__getitem__):g}"
    return DenoiserRun(
        fitted=fitted,
        pins=len({row.pin_id for row in chosen}),
        held_out_pins=sum(len(batch["pin_id"]) for batch in scored),
        held_out_losses=losses,
        average=average,
    )


def map_columns(masks: MaskKind) -> dict[str, str]:
    """The objective's columns -> the shards'."""
    if masks == "none":
        return {name: name for name in TEXT_TO_IMAGE_COLUMNS}
    stored = {"masked": f"masked_{masks}", "holes": f"holes_{masks}"}
    return {name: stored.get(name, name) for name in INPAINT_COLUMNS}


def build_held_out_batches(
    shards: ShardRows, rows: list[ShardRow], spec: HeldOutSpec, columns: Mapping[str, str]
) -> list[Batch]:
    """`spec.pins` of the rows (or all there are), spread evenly, in batches of one bucket."""
    if not rows:
        raise ValueError("no held-out pin is left to score on: the selection is empty outside of the train split")
    places = np.unique(np.linspace(0, len(rows) - 1, min(spec.pins, len(rows))).round().astype(int))
    buckets = group_by_bucket(rows[place] for place in places)
    return [
        shards.read_batch(of_bucket[first : first + spec.batch_size], columns)
        for of_bucket in buckets.values()
        for first in range(0, len(of_bucket), spec.batch_size)
    ]


def compute_held_out_loss(
    denoiser: nn.Module,
    objective: DenoisingObjective,
    batches: Sequence[Batch],
    repeats: int,
    world: World = SINGLE_PROCESS,
) -> float:
    """Mean loss over all samples, each with `repeats` times and noises of its own, the same in every call. The ranks of
    `world` share the work, all of them must call."""
    device = next(denoiser.parameters()).device
    sizes = [len(batch["pin_id"]) for batch in batches]
    turns = [(repeat, number) for repeat in range(repeats) for number in range(len(batches))]
    total = torch.zeros(2, dtype=torch.float64)  # losses, samples
    with eval_mode(denoiser):
        for repeat, number in world.select_share(turns):
            draws = Draws(HELD_OUT_SEED, repeat, sum(sizes[:number]), sizes[number], device)
            loss, _ = objective(denoiser, move_batch(batches[number], device), draws)
            total += torch.tensor([float(loss) * sizes[number], sizes[number]], dtype=total.dtype)
    losses, samples = world.reduce_mean(total.to(device)).tolist()
    return float(losses / samples)
