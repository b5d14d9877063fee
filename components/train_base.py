"""Stage `train_base`: shards in, a text-to-image denoiser out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserSpec, DenoiserTraining, DiffusionSpec, HeldOutSpec, SheetSpec
from canvas.train.spec import Training
from components.artifacts import BaseModel, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBaseParams(DenoiserTraining):
    """The denoiser is trained from its first weights on, or from denoiser.init_from."""


@stage(machine="gpus")
def train_base(
    train_base: TrainBaseParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    denoiser: DenoiserSpec,
    diffusion: DiffusionSpec,
    shards: Input[Shards],
    vae: Input[Vae],
    model: Output[BaseModel],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the text-to-image denoiser on the latents and captions of every kept pin.

    The sheet shows held-out pins above samples of their captions.
    """
    import torch

    from canvas.denoiser.objective import DenoisingObjective
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.sheet import SampleSheet
    from canvas.denoiser.training import train_denoiser
    from canvas.denoiser.unet import build_denoiser
    from canvas.shards.rows import ShardRows, is_any_row
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import get_scale_factor, load_vae

    spec, clock = train_base.resolve(training, held_out), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    rows = ShardRows(shards.path)
    scheduler = build_training_scheduler(diffusion)
    torch.manual_seed(spec.seed)
    unet = build_denoiser(
        denoiser,
        latent_channels=autoencoder.config["latent_channels"],
        sample_size=autoencoder.config["sample_size"] // get_scale_factor(autoencoder),
        text_width=rows.get_shape("text_states")[-1],
        pooled_width=rows.get_shape("text_pooled")[-1],
    )
    objective = DenoisingObjective(
        diffusion,
        get_latent_scale(autoencoder),
        captions=train_base.captions,
        caption_dropout=train_base.caption_dropout,
        inpaint=False,
    )
    samples = SampleSheet(autoencoder, scheduler, rows, sample_sheet, masks="none", wanted=is_any_row)
    run = train_denoiser(
        unet,
        objective,
        rows,
        spec,
        held_out,
        masks="none",
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
