"""Stage `train_ip_adapter`: the backdrop denoiser, product masks and embeddings in, the image-prompt adapter out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canvas.denoiser.spec import DenoiserTraining, DiffusionSpec, HeldOutSpec, ImageDropout, LoraSpec, SheetSpec
from canvas.train.spec import Training
from canvas.uve.pin_embeddings import EmbeddingSource
from components.artifacts import BackdropLora, Embeddings, EngagedLora, InpaintModel, IpAdapter, Shards, Vae
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from diffusers import UNet2DConditionModel

    from canvas.shards.rows import ImageRows
    from canvas.train.data import Batch
    from canvas.uve.pin_embeddings import PinEmbeddings


STARTED = 4000
"""Pins, at most, whose captions say how image tokens start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainIpAdapterParams(DenoiserTraining):
    source: EmbeddingSource  # of the embedding: uve, clip or uve+clip
    image_dropout: ImageDropout
    lora: LoraSpec | None  # trained with it, on top of the others; null: they are kept as they are
    style_layers: tuple[str, ...]  # beginnings of the names of layers that carry style (InstantStyle)


@stage(machine="gpus")
def train_ip_adapter(
    train_ip_adapter: TrainIpAdapterParams,
    training: Training,
    held_out: HeldOutSpec,
    sample_sheet: SheetSpec,
    diffusion: DiffusionSpec,
    shards: Input[Shards],
    embeddings: Input[Embeddings],
    vae: Input[Vae],
    inpaint: Input[InpaintModel],
    backdrop: Input[BackdropLora],
    engaged: Input[EngagedLora],
    adapter: Output[IpAdapter],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train cross-attention to a picture, conditioned on the target itself, on product pins and masks with errors.

    The sheet shows held-out product pins, what is known of them, and samples after caption and image.
    """
    import torch

    from canvas.denoiser.image_prompt import AdapterConfig, save_image_prompt
    from canvas.denoiser.lora import save_lora
    from canvas.denoiser.objective import DenoisingObjective
    from canvas.denoiser.process import build_training_scheduler
    from canvas.denoiser.sheet import SampleSheet
    from canvas.denoiser.training import build_held_out_batches, compute_held_out_loss, map_columns, train_denoiser
    from canvas.shards.rows import ImageRows, has_product
    from canvas.train.distributed import join_world
    from canvas.uve.pin_embeddings import PinEmbeddings
    from canvas.vae.latents import get_latent_scale
    from canvas.vae.model import load_vae

    params, spec, clock = train_ip_adapter, train_ip_adapter.resolve(training, held_out), time.perf_counter()
    autoencoder = load_vae(vae.path).eval()
    known = PinEmbeddings(embeddings.path, params.source)
    rows = ImageRows(shards.path, lambda pins: torch.from_numpy(known.read(pins)))
    unet = _denoiser(params, spec.seed, known, rows, inpaint.path, backdrop.path, engaged.path)
    objective = DenoisingObjective(
        diffusion,
        get_latent_scale(autoencoder),
        captions=params.captions,
        caption_dropout=params.caption_dropout,
        inpaint=True,
        image_dropout=params.image_dropout,
    )
    scheduler = build_training_scheduler(diffusion)
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
        folded=params.lora is not None and params.lora.folded,
    )
    config = AdapterConfig(source=params.source, style_layers=params.style_layers)
    save_image_prompt(unet, config, adapter.path)
    if params.lora is not None:
        save_lora(unet, adapter.path / "lora")

    unseen = [row for row in rows.index if has_product(row) and row.split != "train"]
    batches = build_held_out_batches(rows, unseen, held_out, map_columns("product"))
    others: list[Batch] = [{**batch, "image": _turned(batch["image"])} for batch in batches]
    with join_world(spec.parallel) as world:
        loss_of_others = compute_held_out_loss(unet, objective, others, held_out.repeats, world)
    figures = run.figures(unet) | {
        "held_out_loss_of_other_pictures": loss_of_others,
        "embedding_width": known.width,
        "seconds": time.perf_counter() - clock,
    }
    metrics.path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    losses.path.write_text(run.curve(), encoding="utf-8")
    sheet.path.write_bytes(samples.png(unet))


def _denoiser(
    params: TrainIpAdapterParams,
    seed: int,
    known: PinEmbeddings,
    rows: ImageRows,
    inpaint: Path,
    backdrop: Path,
    engaged: Path,
) -> UNet2DConditionModel:
    """The generator's denoiser, its LoRAs part of its weights, with a new adapter; what is to be trained requires
    gradients."""
    import torch

    from canvas.denoiser.image_prompt import add_image_prompt, resolve_layer_scales
    from canvas.denoiser.lora import add_lora, load_lora, merge_lora
    from canvas.denoiser.unet import load_denoiser

    unet = load_denoiser(inpaint)
    for lora in (backdrop, engaged):
        unet = merge_lora(load_lora(unet, lora))
    unet.requires_grad_(False)
    torch.manual_seed(seed)
    if params.lora is not None:
        add_lora(unet, rank=params.lora.rank, alpha=params.lora.alpha)
    add_image_prompt(unet, known.width, *_told(rows))
    resolve_layer_scales(
        unet, dict.fromkeys(params.style_layers, 1.0)
    )  # before the training, if there is no such layer
    return unet


def _told(rows: ImageRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of train pins with a product, and the tokens of their first captions."""
    import torch

    from canvas.denoiser.image_prompt import compute_caption_tokens
    from canvas.pins.image_batches import select_evenly
    from canvas.shards.rows import group_by_bucket, has_product

    learnt = {row.pin_id: row for row in rows.index if has_product(row) and row.split == "train"}
    chosen = group_by_bucket(learnt[pin] for pin in select_evenly(list(learnt), STARTED))
    embeddings, tokens = [], []
    for numbers in chosen.values():
        for first in range(0, len(numbers), 64):
            batch = rows.read_batch(numbers[first : first + 64], {"text_states": "text_states"})
            embeddings.append(torch.as_tensor(batch["image"]))
            tokens.append(compute_caption_tokens(torch.as_tensor(batch["text_states"])[:, 0]))
    return torch.cat(embeddings), torch.cat(tokens)


def _turned(images: object) -> torch.Tensor:
    """Each picture's embedding at its neighbour's place."""
    import torch

    assert isinstance(images, torch.Tensor)
    return images.roll(1, dims=0)
