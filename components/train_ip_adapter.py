"""Stage `train_ip_adapter`: the backdrop denoiser, product masks and embeddings in, the image-prompt adapter out."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.align.spec import is_for
from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, ImageDropout, LoraSpec, SheetSpec
from canvas.train.spec import Training
from canvas.uve.spec import EmbeddingSource
from components import artifacts
from lifecycle.declare.skipping import is_made, write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainIpAdapterParams(DenoiserTraining):
    source: EmbeddingSource  # of the embedding: uve, clip or uve+clip
    image_dropout: ImageDropout
    lora: LoraSpec | None  # trained with it, on top of the others; null: they are kept as they are
    style_layers: tuple[str, ...]  # beginnings of the names of layers that carry style (InstantStyle)


@stage(machine="gpus", skips=True)
def train_ip_adapter(
    train_ip_adapter: TrainIpAdapterParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    diffusion: DiffusionSpec,
    shards: Input[artifacts.Shards],
    embeddings: Input[artifacts.Embeddings],
    vae: Input[artifacts.Vae],
    inpaint: Input[artifacts.InpaintModel],
    backdrop: Input[artifacts.BackdropLora],
    engaged: Input[artifacts.EngagedLora],
    aligned: Input[artifacts.AlignedLora],
    adapter: Output[artifacts.IpAdapter],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train cross-attention to an image, conditioned on the target itself, on product pins and masks with errors.

    The sheet shows held-out product pins, what is known of them, and samples after caption and image.
    """
    import torch

    from canvas.denoiser.image_prompt import AdapterConfig, save_image_prompt
    from canvas.denoiser.image_prompt_training import build_image_prompt_denoiser
    from canvas.denoiser.lora import save_lora
    from canvas.denoiser.training import DenoiserTrainer
    from canvas.shards.rows import ShardRows, has_product
    from canvas.uve.pin_embeddings import PinEmbeddings

    if train_ip_adapter.train is None:
        write_skipped("train_ip_adapter.train is null, no adapter is made", metrics, losses, sheet, adapter)
        return
    params, shared = train_ip_adapter, (training, held_out, sample_sheet, diffusion)
    table, lora = PinEmbeddings(embeddings.path, params.source), params.lora
    rows = ShardRows(shards.path, lambda pins: torch.from_numpy(table.read(pins)))
    drops = params.image_dropout
    trainer = DenoiserTrainer(
        params, *shared, vae_path=vae.path, rows=rows, masks="product", selects=has_product, image_dropout=drops
    )
    folders = [inpaint.path, *filter(is_made, (backdrop.path, engaged.path))]
    folders += [aligned.path] if is_for(aligned.path, "backdrop") else []
    network = build_image_prompt_denoiser(folders, rows, table.width, lora, params.style_layers, trainer.spec.seed)
    run = trainer.train(network, scratch.path, log, fold_loras=lora is not None and lora.folded)
    save_image_prompt(network, AdapterConfig(source=params.source, style_layers=params.style_layers), adapter.path)
    if lora is not None:
        save_lora(network, adapter.path / "lora")
    mismatched = trainer.compute_mismatched_loss(network)
    more = {"held_out_loss_of_other_pictures": mismatched, "embedding_width": table.width}
    metrics.write(trainer.compute_metrics(network, run, **more))
    losses.write(run.result.losses)
    sheet.write(trainer.sheet.draw_png(network))
