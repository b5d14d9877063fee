"""Stage `train_inpaint`: the base denoiser and random masks in, an inpainting denoiser out."""

from __future__ import annotations

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, SheetSpec
from canvas.train.spec import Training
from components.artifacts import BaseModel, InpaintModel, Shards, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", skips=True)
def train_inpaint(
    train_inpaint: DenoiserTraining,
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
    from canvas.denoiser.initial import copy_source, link_inpaint_denoiser
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.denoiser.unet import add_inpaint_channels, has_inpaint_channels, load_denoiser
    from canvas.shards.rows import ShardRows, is_any_row

    if train_inpaint.train is None:
        what, counts = link_inpaint_denoiser(base.path, model.path)
        write_skipped(f"train_inpaint.train is null, {what}", metrics, losses, sheet, figures=counts)
        return
    rows, shared = ShardRows(shards.path), (training, held_out, sample_sheet, diffusion)
    trainer = DenoiserTrainer(train_inpaint, *shared, vae_path=vae.path, rows=rows, masks="random", selects=is_any_row)
    unet = load_denoiser(base.path)
    if not has_inpaint_channels(unet.config):
        add_inpaint_channels(unet)
    run = trainer.train(unet, scratch.path, log)
    unet.save_pretrained(model.path / "unet")
    trainer.scheduler.save_pretrained(model.path / "scheduler")
    copy_source(base.path, model.path)
    metrics.write(trainer.compute_metrics(unet, run))
    losses.write(run.result.losses)
    sheet.write(trainer.sheet.draw_png(unet))
