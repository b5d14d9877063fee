"""Stage `train_inpaint`: the base denoiser and random masks in, an inpainting denoiser out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, SheetSpec
from canvas.train.spec import Training
from components.artifacts import BaseModel, InpaintModel, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainInpaintParams(DenoiserTraining):
    """The base's weights are all trained on, with the inputs of inpainting that start at zero."""


@stage(machine="gpus")
def train_inpaint(
    train_inpaint: TrainInpaintParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    diffusion: DiffusionSpec,
    shards: Input[Shards],
    vae: Input[Vae],
    base: Input[BaseModel],
    model: Output[InpaintModel],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the denoiser to paint what random masks hide, in every kept pin.

    The sheet shows held-out pins, what is known of them, and samples.
    """
    from canvas.denoiser.objective import DenoisingObjective
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.sheet import SampleSheet
    from canvas.denoiser.training import train_denoiser
    from canvas.denoiser.unet import add_inpaint_channels, load_denoiser
    from canvas.shards.rows import ShardRows, is_any_row
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import load_vae

    spec, clock = train_inpaint.resolve(training, held_out), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    rows = ShardRows(shards.path)
    scheduler = build_training_scheduler(diffusion)
    unet = add_inpaint_channels(load_denoiser(base.path))
    objective = DenoisingObjective(
        diffusion,
        get_latent_scale(autoencoder),
        captions=train_inpaint.captions,
        caption_dropout=train_inpaint.caption_dropout,
        inpaint=True,
    )
    samples = SampleSheet(autoencoder, scheduler, rows, sample_sheet, masks="random", wanted=is_any_row)
    run = train_denoiser(
        unet,
        objective,
        rows,
        spec,
        held_out,
        masks="random",
        wanted=is_any_row,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
        sample=lambda model, step: log.picture(f"samples-{step:06d}", samples.png(model)),
    )
    unet.save_pretrained(model.path / "unet")
    scheduler.save_pretrained(model.path / "scheduler")

    figures = run.figures(unet) | {"seconds": time.perf_counter() - clock}
    metrics.path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    losses.path.write_text(run.curve(), encoding="utf-8")
    sheet.path.write_bytes(samples.png(unet))
