"""Stage `train_inpaint`: the base denoiser and random masks in, an inpainting denoiser out."""

from __future__ import annotations

from canvas.denoiser.spec import DiffusionSpec, HeldOutSpec, SheetSpec, WholeTraining
from canvas.train.spec import Training
from components.artifacts import BaseModel, InpaintModel, Shards, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", skips=True)
def train_inpaint(
    train_inpaint: WholeTraining,
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
    """Train the denoiser to generate what random masks hide, in every kept pin.

    All weights of the base are trained, with the inputs of inpainting, which start at zero where it has none. The sheet
    shows held-out pins, what is known of them, and samples.
    """
    from canvas.denoiser import loading
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.shards.rows import ShardRows, is_any_row
    from canvas.vae.model import get_scale_factor

    if train_inpaint.train is None:
        what, counts = loading.link_inpaint_denoiser(base.path, vae.path, model.path)
        write_skipped(f"train_inpaint.train is null, {what}", metrics, losses, sheet, figures=counts)
        return
    rows, shared = ShardRows(shards.path), (training, held_out, sample_sheet, diffusion)
    trainer = DenoiserTrainer(
        train_inpaint,
        *shared,
        vae_path=vae.path,
        rows=rows,
        masks="random",
        selects=is_any_row,
        alignment=train_inpaint.feature_alignment,
    )
    network = loading.add_inpaint_channels(loading.load_denoiser(base.path), get_scale_factor(trainer.vae))
    run = trainer.train(network, scratch.path, log)
    loading.save_denoiser(network, model.path)
    trainer.scheduler.save_pretrained(model.path / "scheduler")
    loading.copy_source(base.path, model.path)
    metrics.write(trainer.compute_metrics(network, run))
    losses.write(run.result.losses)
    sheet.write(trainer.sheet.draw_png(network))
