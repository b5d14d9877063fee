"""The denoiser that the image-prompt adapter is trained with, and how its image tokens start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from canvas.denoiser.family import Denoiser
from canvas.denoiser.image_prompt import (
    IMAGE_TOKENS,
    add_image_prompt,
    get_projection,
    resolve_layer_scales,
    start_from_text,
)
from canvas.denoiser.loading import get_family, load_denoiser
from canvas.denoiser.lora import add_lora, load_lora, merge_lora
from canvas.denoiser.spec import LoraSpec
from canvas.pins.image_batches import select_evenly
from canvas.shards.rows import ShardRows, batch_by_bucket, has_product

MAX_CAPTION_PINS = 4000
"""Pins, at most, whose captions say how image tokens start."""

MIN_STD_SHARE = 0.1
"""Directions of the embedding that vary less than this share of the mean count as if they varied so much."""

RIDGE_PENALTY = 0.1
"""Penalty of the regression of captions on embeddings, where these have variance 1."""


def build_image_prompt_denoiser(
    folders: Sequence[Path],
    rows: ShardRows,
    width: int,
    lora: LoraSpec | None,
    style_layers: Sequence[str],
    seed: int,
) -> Denoiser:
    """Return the generator's denoiser with a new adapter, which alone, with a new LoRA if any, requires gradients.

    Args:
        folders: The inpainting denoiser's, then those of its LoRAs, which become part of its weights.
        rows: Training rows, whose captions say how image tokens start.
        width: Of the image embeddings.
        lora: The LoRA to train with the adapter; None: none.
        style_layers: Beginnings of the names of layers that carry style.
        seed: Of the new weights.

    Raises:
        ValueError: For style layers that the denoiser has not, before any training.
    """
    denoiser = load_denoiser(folders[0])
    for folder in folders[1:]:
        denoiser = merge_lora(load_lora(denoiser, folder))
    denoiser.requires_grad_(False)
    torch.manual_seed(seed)
    if lora is not None:
        add_lora(denoiser, rank=lora.rank, alpha=lora.alpha)
    embeddings, tokens = collect_caption_tokens(rows)
    start_from_captions(add_image_prompt(denoiser, width), embeddings, tokens)
    resolve_layer_scales(denoiser, dict.fromkeys(style_layers, 1.0))
    return denoiser


def collect_caption_tokens(rows: ShardRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings (N, E) of train pins with a product, and the tokens (N, TOKENS, D) of their first captions."""
    # Of views after the first some are collages: their captions name products that their pins' embeddings know not.
    chosen = (row for row in rows.index if has_product(row) and row.view == 0 and row.split == "train")
    row_of = {row.pin_id: row for row in chosen}
    embeddings, tokens = [], []
    for batch in batch_by_bucket((row_of[pin] for pin in select_evenly(row_of, MAX_CAPTION_PINS)), 64):
        columns = rows.read_columns(batch, ["text_states"])
        embeddings.append(columns["image"])
        tokens.append(compute_caption_tokens(columns["text_states"][:, 0]))
    return torch.cat(embeddings), torch.cat(tokens)


def compute_caption_tokens(states: torch.Tensor) -> torch.Tensor:
    """Return text states (B, L, D) as (B, TOKENS, D): means of as many parts of the text, without its start sign."""
    return torch.stack([part.float().mean(dim=1) for part in states[:, 1:].tensor_split(IMAGE_TOKENS, dim=1)], dim=1)


def start_from_captions(denoiser: Denoiser, embeddings: torch.Tensor, captions: torch.Tensor) -> None:
    """Let an image start as its caption, in place, as far as a linear map of its embedding tells it.

    `embeddings` (N, E) of images and `captions` (N, TOKENS, D) of the same, from `compute_caption_tokens`. Values
    start as the text's, too, where the family has a use for that; else they stay as they are.
    """
    projection = get_projection(denoiser)
    weight, bias = _fit_projection(embeddings.float(), captions.flatten(1))
    with torch.no_grad():
        projection.image_embeds.weight.copy_(weight)
        projection.image_embeds.bias.copy_(bias)
        # what normalising takes from a token
        projection.norm.weight.fill_(float(captions.std(dim=-1, correction=0).mean()))
        projection.norm.bias.fill_(float(captions.mean()))
    if get_family(denoiser).starts_values_from_text:
        start_from_text(denoiser, "v")


def _fit_projection(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit weight and bias of the ridge regression of `targets` (N, K) on `inputs` (N, E), scaled to unit variance."""
    scale = inputs.std(dim=0)
    scale = scale.clamp(min=MIN_STD_SHARE * float(scale.mean()))
    mean, target_mean = inputs.mean(dim=0), targets.mean(dim=0)
    scaled = (inputs - mean) / scale
    square = scaled.T @ scaled / len(scaled) + RIDGE_PENALTY * torch.eye(inputs.shape[1])
    weight = torch.linalg.solve(square, scaled.T @ (targets - target_mean) / len(scaled)).T / scale
    return weight, target_mean - weight @ mean
