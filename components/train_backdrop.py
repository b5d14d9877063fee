"""Stage `train_backdrop`: the inpainting denoiser and product masks in, the backdrop LoRA out."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, LoraSpec, SheetSpec
from canvas.train.spec import Training
from components.artifacts import BackdropLora, InpaintModel, Shards, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBackdropParams(DenoiserTraining):
    lora: LoraSpec


@stage(machine="gpus", skips=True)
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
    """Train a LoRA to generate backgrounds round products, on product pins and masks with simulated errors.

    The sheet shows held-out product pins, what is known of them, and samples.
    """
    import torch

    from canvas.denoiser.loading import load_denoiser
    from canvas.denoiser.lora import add_lora, save_lora
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.shards.rows import ShardRows, has_product

    if train_backdrop.train is None:
        write_skipped("train_backdrop.train is null, no LoRA is made", metrics, losses, sheet, lora)
        return
    params, rows, shared = train_backdrop, ShardRows(shards.path), (training, held_out, sample_sheet, diffusion)
    trainer = DenoiserTrainer(params, *shared, vae_path=vae.path, rows=rows, masks="product", selects=has_product)
    torch.manual_seed(trainer.spec.seed)
    network = add_lora(load_denoiser(inpaint.path), rank=params.lora.rank, alpha=params.lora.alpha)
    run = trainer.train(network, scratch.path, log, fold_loras=params.lora.folded)
    save_lora(network, lora.path)
    metrics.write(trainer.compute_metrics(network, run))
    losses.write(run.result.losses)
    sheet.write(trainer.sheet.draw_png(network))
