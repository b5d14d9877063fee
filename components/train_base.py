"""Stage `train_base`: shards in, a text-to-image denoiser out."""

from __future__ import annotations

from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec, HeldOutSpec, SheetSpec, WholeTraining
from canvas.pins.frames import FrameSpec
from canvas.shards.spec import estimate_index_memory
from canvas.train.spec import Training
from components.artifacts import BaseModel, Shards, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", memory=estimate_index_memory, skips=True)
def train_base(
    train_base: WholeTraining,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    denoiser: DenoiserSpec,
    diffusion: DiffusionSpec,
    frames: FrameSpec,
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

    It starts from random weights, or from denoiser.init_from, which passes through where train is null. The sheet shows
    held-out pins above samples of their captions.
    """
    import torch

    from canvas.denoiser.loading import build_denoiser, get_family, link_initial_denoiser, save_denoiser
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.hub import record_source
    from canvas.shards.rows import ShardRows, is_any_row
    from canvas.vae.model import get_scale_factor

    rows, shared = ShardRows(shards.path), (training, held_out, sample_sheet, diffusion)
    states, pooled = (rows.get_shape(name)[-1] for name in ("text_states", "text_pooled"))
    if train_base.train is None:
        sizes = {"side": frames.side, "text_width": states, "pooled_width": pooled}
        counts = link_initial_denoiser(denoiser, diffusion, model.path, vae=vae.path, **sizes)
        reason = "train_base.train is null, denoiser.init_from passes through"
        write_skipped(reason, metrics, losses, sheet, figures=counts)
        return
    trainer = DenoiserTrainer(
        train_base,
        *shared,
        vae_path=vae.path,
        rows=rows,
        masks="none",
        selects=is_any_row,
        alignment=train_base.feature_alignment,
    )
    torch.manual_seed(trainer.spec.seed)
    network = build_denoiser(
        denoiser,
        latent_channels=trainer.vae.config["latent_channels"],
        sample_size=frames.side // get_scale_factor(trainer.vae),
        text_width=states,
        pooled_width=pooled,
    )
    run = trainer.train(network, scratch.path, log)
    save_denoiser(network, model.path)
    trainer.scheduler.save_pretrained(model.path / "scheduler")
    record_source(denoiser.init_from, model.path, subfolder=get_family(network).component)
    metrics.write(trainer.compute_metrics(network, run))
    losses.write(run.result.losses)
    sheet.write(trainer.sheet.draw_png(network))
