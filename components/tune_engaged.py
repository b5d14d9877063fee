"""Stage `tune_engaged`: the backdrop LoRA and engaged promoted pins in, the engaged LoRA out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, LoraSpec, SheetSpec
from canvas.shards.engagement import EngagementRule
from canvas.train.spec import Training
from components.artifacts import BackdropLora, EngagedLora, InpaintModel, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneEngagedParams(DenoiserTraining):
    lora: LoraSpec
    rule: EngagementRule


@stage(machine="gpus")
def tune_engaged(
    tune_engaged: TuneEngagedParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    diffusion: DiffusionSpec,
    shards: Input[Shards],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    backdrop: Input[BackdropLora],
    lora: Output[EngagedLora],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train a second LoRA, on top of the backdrop LoRA, on promoted pins that people engaged with most.

    The sheet shows held-out engaged pins, what is known of them, and samples.
    """
    import torch

    from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
    from canvas.denoiser.objective import DenoisingObjective
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.sheet import SampleSheet
    from canvas.denoiser.training import train_denoiser
    from canvas.denoiser.unet import load_denoiser
    from canvas.shards.engagement import EngagementSelection
    from canvas.shards.rows import ShardRows
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import load_vae

    spec, clock = tune_engaged.resolve(training, held_out), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    rows = ShardRows(shards.path)
    scheduler = build_training_scheduler(diffusion)
    unet = merge_lora(load_lora(load_denoiser(inpaint.path), backdrop.path))
    torch.manual_seed(spec.seed)
    add_lora(unet, rank=tune_engaged.lora.rank, alpha=tune_engaged.lora.alpha)
    objective = DenoisingObjective(
        diffusion,
        get_latent_scale(autoencoder),
        captions=tune_engaged.captions,
        caption_dropout=tune_engaged.caption_dropout,
        inpaint=True,
    )
    wanted = EngagementSelection(rows.index, tune_engaged.rule)
    samples = SampleSheet(autoencoder, scheduler, rows, sample_sheet, masks="product", wanted=wanted)
    run = train_denoiser(
        unet,
        objective,
        rows,
        spec,
        held_out,
        masks="product",
        wanted=wanted,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
        sample=lambda model, step: log.picture(f"samples-{step:06d}", samples.png(model)),
        folded=tune_engaged.lora.folded,
    )
    save_lora(unet, lora.path)

    figures = run.figures(unet) | {"selection": wanted.compute_metrics()} | {"seconds": time.perf_counter() - clock}
    metrics.path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    losses.path.write_text(run.curve(), encoding="utf-8")
    sheet.path.write_bytes(samples.png(unet))
