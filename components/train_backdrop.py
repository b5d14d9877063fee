"""Stage `train_backdrop`: the inpainting denoiser and product masks in, the backdrop LoRA out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, LoraSpec, SheetSpec
from canvas.train.spec import Training
from components.artifacts import BackdropLora, InpaintModel, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBackdropParams(DenoiserTraining):
    lora: LoraSpec


@stage(machine="gpus")
def train_backdrop(
    train_backdrop: TrainBackdropParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    diffusion: DiffusionSpec,
    shards: Input[Shards],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    lora: Output[BackdropLora],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train a LoRA to paint backgrounds round products, on product pins and masks with simulated errors.

    The sheet shows held-out product pins, what is known of them, and samples.
    """
    import torch

    from canvas.denoiser.lora import add_lora, save_lora
    from canvas.denoiser.objective import DenoisingObjective
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.sheet import SampleSheet
    from canvas.denoiser.training import train_denoiser
    from canvas.denoiser.unet import load_denoiser
    from canvas.shards.rows import ShardRows, has_product
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import load_vae

    spec, clock = train_backdrop.resolve(training, held_out), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    rows = ShardRows(shards.path)
    scheduler = build_training_scheduler(diffusion)
    torch.manual_seed(spec.seed)
    unet = add_lora(load_denoiser(inpaint.path), rank=train_backdrop.lora.rank, alpha=train_backdrop.lora.alpha)
    objective = DenoisingObjective(
        diffusion,
        get_latent_scale(autoencoder),
        captions=train_backdrop.captions,
        caption_dropout=train_backdrop.caption_dropout,
        inpaint=True,
    )
    samples = SampleSheet(autoencoder, scheduler, rows, sample_sheet, masks="product", wanted=has_product)
    run = train_denoiser(
        unet,
        objective,
        rows,
        spec,
        held_out,
        masks="product",
        wanted=has_product,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
        sample=lambda model, step: log.picture(f"samples-{step:06d}", samples.png(model)),
        folded=train_backdrop.lora.folded,
    )
    save_lora(unet, lora.path)

    figures = run.figures(unet) | {"seconds": time.perf_counter() - clock}
    metrics.path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    losses.path.write_text(run.curve(), encoding="utf-8")
    sheet.path.write_bytes(samples.png(unet))
