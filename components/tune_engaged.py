"""Stage `tune_engaged`: the backdrop LoRA and engaged promoted pins in, the engaged LoRA out."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, LoraSpec, SheetSpec
from canvas.shards.spec import EngagementRule
from canvas.train.spec import Training
from components.artifacts import BackdropLora, EngagedLora, InpaintModel, Shards, Vae
from lifecycle.declare.skipping import is_made, write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneEngagedParams(DenoiserTraining):
    lora: LoraSpec
    rule: EngagementRule


@stage(machine="gpus", skips=True)
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
    the impressions, no LoRA is made, and the metrics say so.

    The sheet shows held-out engaged pins, what is known of them, and samples.
    """
    import torch

    from canvas.denoiser.loading import load_denoiser
    from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.shards.rows import EngagementSelection, ShardRows

    params, shared = tune_engaged, (training, held_out, sample_sheet, diffusion)
    if params.train is None:
        write_skipped("tune_engaged.train is null, no LoRA is made", metrics, losses, sheet, lora)
        return
    rows = ShardRows(shards.path)
    selection = EngagementSelection(rows.index, params.rule)
    if selection.is_empty:
        seen = f"{params.rule.min_impressions} impressions and a save or click"
        reason = f"no promoted product pin to train on has {seen}, no LoRA is made"
        write_skipped(reason, metrics, losses, sheet, lora)
        return
    trainer = DenoiserTrainer(params, *shared, vae_path=vae.path, rows=rows, masks="product", selects=selection)
    network = load_denoiser(inpaint.path)
    if is_made(backdrop.path):
        merge_lora(load_lora(network, backdrop.path))
    torch.manual_seed(trainer.spec.seed)
    add_lora(network, rank=params.lora.rank, alpha=params.lora.alpha)
    run = trainer.train(network, scratch.path, log, fold_loras=params.lora.folded)
    metrics.write(trainer.compute_metrics(network, run, selection=selection.compute_metrics()))
    losses.write(run.result.losses)
    save_lora(network, lora.path)
    sheet.write(trainer.sheet.draw_png(network))
