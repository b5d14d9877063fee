"""Stage `tune_engaged`: the backdrop LoRA and engaged promoted pins in, the engaged LoRA out."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, LoraSpec, SheetSpec
from canvas.shards.spec import EngagementRule
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
    """Train a second LoRA, on top of the backdrop LoRA, on promoted pins that people engaged with most. Where none has
    the impressions, the LoRA is left as it starts, which changes nothing, and the metrics note it.

    The sheet shows held-out engaged pins, what is known of them, and samples.
    """
    import torch

    from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.denoiser.unet import load_denoiser
    from canvas.shards.rows import EngagementSelection, ShardRows, has_product

    params, rows, shared = tune_engaged, ShardRows(shards.path), (training, held_out, sample_sheet, diffusion)
    selection = EngagementSelection(rows.index, params.rule)
    selects = has_product if selection.is_empty else selection
    trainer = DenoiserTrainer(params, *shared, vae_path=vae.path, rows=rows, masks="product", selects=selects)
    unet = merge_lora(load_lora(load_denoiser(inpaint.path), backdrop.path))
    torch.manual_seed(trainer.spec.seed)
    add_lora(unet, rank=params.lora.rank, alpha=params.lora.alpha)
    if selection.is_empty:
        seen = params.rule.min_impressions
        trainer.notes.add(f"no promoted product pin to train on has {seen} impressions, so nothing was trained")
        metrics.write(trainer.notes.to_metrics())
        losses.write([])
    else:
        run = trainer.train(unet, scratch.path, log, fold_loras=params.lora.folded)
        metrics.write(trainer.compute_metrics(unet, run, selection=selection.compute_metrics()))
        losses.write(run.result.losses)
    save_lora(unet, lora.path)
    sheet.write(trainer.sheet.draw_png(unet))
