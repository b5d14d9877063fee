"""Training of a denoiser: what its five stages share. They differ in rows, masks, and which weights are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from canvas.denoiser.lora import fold_lora_weights
from canvas.denoiser.objective import DenoisingObjective, MaskKind, map_columns
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sheet import SampleSheet
from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, ImageDropout, SheetSpec
from canvas.shards.rows import ShardRow, ShardRows, group_by_bucket
from canvas.train.data import Batch, PrefetchedBatches, move_batch
from canvas.train.distributed import SINGLE_PROCESS, World, join_world
from canvas.train.draws import Draws
from canvas.train.ema import load_best
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training
from canvas.train.state import eval_mode
from canvas.vae.latents import get_latent_scale
from canvas.vae.model import load_vae

HELD_OUT_SEED = 1
"""Seed of the timesteps and noises of the held-out loss: the same for every model, so that their losses compare."""


class TrainingLog(Protocol):
    """Where a training records what it does."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""

    def image(self, name: str, png: bytes) -> None:
        """Record an encoded PNG."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRun:
    """What a run leaves beside the trained denoiser."""

    result: TrainResult
    pins: int  # trained on, one or more views of each
    held_out_pins: int
    held_out_losses: dict[str, float]  # before training, and after by length of the average ("last": none)
    average: str  # the chosen one

    def compute_metrics(self, denoiser: nn.Module) -> dict[str, Any]:
        """Return the numbers of a stage's metrics."""
        return {
            "held_out_loss": self.held_out_losses[self.average],
            "held_out_losses": self.held_out_losses,
            "average": 0.0 if self.average == "last" else float(self.average),
            "pins": self.pins,
            "held_out_pins": self.held_out_pins,
            "parameters": sum(weight.numel() for weight in denoiser.parameters()),
            "trained_parameters": sum(weight.numel() for weight in denoiser.parameters() if weight.requires_grad),
            "images_per_second": self.result.images_per_second,
            "peak_memory_mb": self.result.peak_memory_bytes / 1e6,
        }


class DenoiserTrainer:
    """Train a denoiser on those shard rows that a stage selects.

    Args:
        params: The stage's own.
        training: What all trainings share.
        held_out: The loss by which the average of the weights is chosen.
        sheet: The sheet of samples.
        diffusion: The noising process.
        vae: Directory of the autoencoder that the shards were encoded with.
        rows: The shards.
        masks: Which of the rows' masks hide the image; "none": text-to-image.
        selects: Which rows count, in training and held out.
        image_dropout: For a denoiser with image prompts.
    """

    def __init__(
        self,
        params: DenoiserTraining,
        training: Training,
        held_out: HeldOutSpec,
        sheet: SheetSpec,
        diffusion: DiffusionSpec,
        *,
        vae: Path,
        rows: ShardRows,
        masks: MaskKind,
        selects: Callable[[ShardRow], bool],
        image_dropout: ImageDropout | None = None,
    ) -> None:
        self._clock = time.perf_counter()
        self.spec = params.resolve(training, held_out)
        self.held_out = held_out
        self.vae = load_vae(vae).eval()
        self.scheduler = build_training_scheduler(diffusion)
        self.rows = rows
        self.columns = map_columns(masks)
        self.train_rows = [row for row in rows.index if selects(row) and row.split == "train"]
        self.held_out_rows = [row for row in rows.index if selects(row) and row.split != "train"]
        self.objective = DenoisingObjective(
            diffusion,
            get_latent_scale(self.vae),
            captions=params.captions,
            caption_dropout=params.caption_dropout,
            inpaint=masks != "none",
            image_dropout=image_dropout,
        )
        self.sheet = SampleSheet(self.vae, self.scheduler, rows, sheet, masks=masks, selects=selects)

    def train(
        self,
        denoiser: UNet2DConditionModel,
        work: Path,
        log: TrainingLog,
        *,
        fold_loras: bool = False,
    ) -> DenoiserRun:
        """Train the weights of `denoiser` that require gradients, and leave in it the average of the lowest held-out
        loss. A killed run goes on from `work`. `fold_loras`: as `canvas.denoiser.lora.fold_lora_weights` says."""
        batches = self.rows.build_batches(self.train_rows, self.columns, self.spec.batch_size, self.spec.seed)
        scored = self.build_held_out_batches()

        def log_sheet(model: nn.Module, step: int) -> None:
            log.image(f"samples-{step:06d}", self.sheet.draw_png(model))

        with join_world(self.spec.parallel) as world:

            def score(model: nn.Module) -> float:
                return compute_held_out_loss(model, self.objective, scored, self.held_out.repeats, world)

            losses = {"before": score(denoiser.to(world.device))}
            with fold_lora_weights(denoiser) if fold_loras else nullcontext():
                result = fit(
                    denoiser,
                    self.objective,
                    PrefetchedBatches(batches),
                    self.spec,
                    checkpoints=work / "checkpoints",
                    log=log.metrics,
                    sample=log_sheet,
                )
            losses["last"], average = score(denoiser), "last"
            if result.snapshots is not None:
                by_length = load_best(denoiser, result.snapshots, self.held_out.averages, score)
                losses |= {f"{length:g}": loss for length, loss in by_length.items()}
                average = f"{min(by_length, key=by_length.__getitem__):g}"
        return DenoiserRun(
            result=result,
            pins=len({row.pin_id for row in self.train_rows}),
            held_out_pins=sum(len(batch["pin_id"]) for batch in scored),
            held_out_losses=losses,
            average=average,
        )

    def build_held_out_batches(self) -> list[Batch]:
        """Return the batches that the held-out loss is computed on."""
        return build_held_out_batches(self.rows, self.held_out_rows, self.held_out, self.columns)

    def compute_mismatched_loss(self, denoiser: nn.Module) -> float:
        """Return the held-out loss where each sample's image prompt is its neighbour's."""
        batches: list[Batch] = [
            {**batch, "image": torch.as_tensor(batch["image"]).roll(1, dims=0)}
            for batch in self.build_held_out_batches()
        ]
        with join_world(self.spec.parallel) as world:
            return compute_held_out_loss(denoiser, self.objective, batches, self.held_out.repeats, world)

    def compute_metrics(self, denoiser: nn.Module, run: DenoiserRun, **more: object) -> dict[str, Any]:
        """Return the numbers of a run, with `more` of them; its seconds count from the trainer's start."""
        return run.compute_metrics(denoiser) | more | {"seconds": time.perf_counter() - self._clock}


def build_held_out_batches(
    shards: ShardRows, rows: list[ShardRow], spec: HeldOutSpec, columns: Mapping[str, str]
) -> list[Batch]:
    """Return `spec.pins` of the rows (or all there are), spread evenly, in batches of one bucket."""
    if not rows:
        raise ValueError("no held-out pin is left to score on: the selection is empty outside of the train split")
    places = np.unique(np.linspace(0, len(rows) - 1, min(spec.pins, len(rows))).round().astype(int))
    buckets = group_by_bucket(rows[place] for place in places)
    return [
        shards.read_batch(numbers[first : first + spec.batch_size], columns)
        for numbers in buckets.values()
        for first in range(0, len(numbers), spec.batch_size)
    ]


def compute_held_out_loss(
    denoiser: nn.Module,
    objective: DenoisingObjective,
    batches: Sequence[Batch],
    repeats: int,
    world: World = SINGLE_PROCESS,
) -> float:
    """Return the mean loss over all samples, each with `repeats` timesteps and noises of its own, the same in every
    call. The ranks of `world` share the work; all of them must call."""
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
