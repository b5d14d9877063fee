"""Training of a denoiser: what its five stages share. They differ in rows, masks and the weights that are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from canvas.denoiser.batch import DenoiserBatch, MaskKind, build_batches, read_batch
from canvas.denoiser.family import Denoiser, DenoiserFamily
from canvas.denoiser.feature_alignment.head import align_denoiser
from canvas.denoiser.feature_alignment.spec import FeatureAlignment
from canvas.denoiser.loading import get_family
from canvas.denoiser.lora import fold_lora_weights
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sheet import SampleSheet
from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, ImageDropout, SheetSpec
from canvas.pins.fallbacks import Notes
from canvas.shards.rows import ShardRow, ShardRows, batch_by_bucket, spread_evenly
from canvas.train.data import PrefetchedBatches, move_batch
from canvas.train.distributed import SINGLE_PROCESS, World, join_world
from canvas.train.draws import Draws
from canvas.train.ema import load_best
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training
from canvas.train.state import eval_mode
from canvas.vae.model import get_latent_scale, get_scale_factor, load_vae

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
    held_out_losses: dict[str, float]  # before training, and after by length of the average ("last": none)
    average: str  # the chosen one


@dataclass
class DenoiserTrainer:
    """Train a denoiser on those shard rows that a stage selects."""

    params: DenoiserTraining  # the stage's own
    training: Training  # what all trainings share
    held_out: HeldOutSpec
    sheet_spec: SheetSpec
    diffusion: DiffusionSpec
    _: KW_ONLY
    vae_path: Path  # the autoencoder that the shards were encoded with
    rows: ShardRows
    masks: MaskKind  # which of the rows' masks hide the image; none: text-to-image
    selects: Callable[[ShardRow], bool]  # which rows count, in training and held out
    image_dropout: ImageDropout | None = None  # of a denoiser with image prompts
    alignment: FeatureAlignment | None = None  # of hidden states with the shards' features

    def __post_init__(self) -> None:
        self._clock = time.perf_counter()
        self.spec = self.params.resolve(self.training, self.held_out)
        self.vae = load_vae(self.vae_path).eval()
        diffusion = self.diffusion.resolve_shift(self.rows.cells)
        self.scheduler = build_training_scheduler(diffusion)
        selected = [row for row in self.rows.index if self.selects(row)]
        self.train_rows = [row for row in selected if row.split == "train"]
        self.notes = Notes()
        held_out_rows = [row for row in selected if row.split != "train"]
        if not held_out_rows and self.train_rows:
            self.notes.add("no pin of the selection is held out, so pins that training saw were scored and sampled")
            held_out_rows = [row for row in self.train_rows if row.view == 0]
        self.sheet = SampleSheet(
            self.vae, self.scheduler, self.rows, self.sheet_spec, masks=self.masks, rows=held_out_rows
        )
        self.held_out_batches = read_held_out(self.rows, held_out_rows, self.held_out, self.masks)
        self.objective = DenoisingObjective(
            diffusion,
            get_latent_scale(self.vae),
            captions=self.params.captions,
            caption_dropout=self.params.caption_dropout,
            inpaint=self.masks != "none",
            image_dropout=self.image_dropout,
            alignment_weight=0.0 if self.alignment is None else self.alignment.weight,
            aligned_steps=0 if self.alignment is None else self.alignment.count_steps(self.spec.steps),
        )

    def train(
        self,
        denoiser: Denoiser,
        work: Path,
        log: TrainingLog,
        *,
        fold_loras: bool = False,
    ) -> DenoiserRun:
        """Train the weights of `denoiser` that require gradients, and leave in it the average of the lowest held-out
        loss. A killed run goes on from `work`. `fold_loras`: as `canvas.denoiser.lora.fold_lora_weights` says."""
        self.check_inputs(get_family(denoiser))
        size, seed, with_features = self.spec.batch_size, self.spec.seed, self.alignment is not None
        batches = build_batches(self.rows, self.train_rows, self.masks, size, seed, with_features=with_features)

        def log_sheet(model: Denoiser, step: int) -> None:
            log.image(f"samples-{step:06d}", self.sheet.draw_png(model))

        with join_world(self.spec.parallel) as world:

            def score(model: nn.Module) -> float:
                batches = self.held_out_batches
                return compute_held_out_loss(model, self.objective, batches, self.held_out.repeats, world)

            losses = {"before": score(denoiser.to(world.device))}
            with self._align(denoiser):
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
        return DenoiserRun(result=result, held_out_losses=losses, average=average)

    def _align(self, denoiser: Denoiser) -> AbstractContextManager[None]:
        """Give the denoiser the head of `alignment`, if any, for as long as the context lasts."""
        if self.alignment is None:
            return nullcontext()
        if not self.rows.has_column("features"):
            raise ValueError(
                "feature_alignment is given, but the shards hold no features: set encode.features, or use null"
            )
        return align_denoiser(denoiser, self.alignment, self.rows.get_shape("features")[0], self.spec.seed)

    def check_inputs(self, family: DenoiserFamily) -> None:
        """Raise ValueError if the shards are not what a denoiser of that family reads."""
        cell = get_scale_factor(self.vae)
        for row in {row.bucket: row for row in self.train_rows}.values():
            if any(int(side) % (cell * family.patch) for side in row.bucket.split("x")):
                raise ValueError(
                    f"the shards have frames of {row.bucket} pixels, denoiser.kind {family.kind} reads multiples of "
                    f"{cell * family.patch}: change frames.buckets"
                )
        columns = ["holes_random", "holes_product"]  # of text-to-image, too: inpainting comes after it
        needed = family.count_hole_channels(cell)
        for column in columns if self.masks == "none" else [f"holes_{self.masks}"]:
            if self.rows.has_column(column) and (channels := self.rows.get_shape(column)[1]) != needed:
                raise ValueError(
                    f"the shards' holes have {channels} numbers a latent cell, denoiser.kind {family.kind} reads "
                    f"{needed}: change encode.holes"
                )

    def compute_mismatched_loss(self, denoiser: nn.Module) -> float:
        """Return the held-out loss where each sample's image prompt is its neighbour's."""
        batches: list[DenoiserBatch] = [
            {**batch, "image": batch["image"].roll(1, dims=0)} for batch in self.held_out_batches
        ]
        with join_world(self.spec.parallel) as world:
            return compute_held_out_loss(denoiser, self.objective, batches, self.held_out.repeats, world)

    def compute_metrics(self, denoiser: nn.Module, run: DenoiserRun, **more: object) -> dict[str, Any]:
        """Return the numbers of a run, with `more` of them; its seconds count from the trainer's start."""
        weights = list(denoiser.parameters())
        return {
            "held_out_loss": run.held_out_losses[run.average],
            "held_out_losses": run.held_out_losses,
            "average": 0.0 if run.average == "last" else float(run.average),
            "pins": len({row.pin_id for row in self.train_rows}),
            "held_out_pins": sum(len(batch["pin_id"]) for batch in self.held_out_batches),
            "parameters": sum(weight.numel() for weight in weights),
            "trained_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
            "images_per_second": run.result.images_per_second,
            "peak_memory_mb": run.result.peak_memory_bytes / 1e6,
            **more,
            **self.notes.to_metrics(),
            "seconds": time.perf_counter() - self._clock,
        }


def read_held_out(
    shards: ShardRows, rows: Sequence[ShardRow], spec: HeldOutSpec, masks: MaskKind
) -> list[DenoiserBatch]:
    """Read `spec.pins` of the rows, or all there are, spread evenly, in batches of one bucket."""
    if not rows:
        raise ValueError("no held-out pin is left to score on: the selection is empty outside of the train split")
    numbers = batch_by_bucket(spread_evenly(rows, spec.pins), spec.batch_size)
    return [read_batch(shards, batch, masks) for batch in numbers]


def compute_held_out_loss(
    denoiser: nn.Module,
    objective: DenoisingObjective,
    batches: Sequence[DenoiserBatch],
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
