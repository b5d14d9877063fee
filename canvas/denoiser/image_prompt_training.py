"""The denoiser that the image-prompt adapter is trained with, and how its image tokens start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser.image_prompt import add_image_prompt, compute_caption_tokens, resolve_layer_scales
from canvas.denoiser.lora import add_lora, load_lora, merge_lora
from canvas.denoiser.spec import LoraSpec
from canvas.denoiser.unet import load_denoiser
from canvas.pins.image_batches import select_evenly
from canvas.shards.rows import ImageRows, group_by_bucket, has_product

MAX_CAPTION_PINS = 4000
"""Pins, at most, whose captions say how image tokens start."""


def build_image_prompt_denoiser(
    folders: Sequence[Path],
    rows: ImageRows,
    width: int,
    lora: LoraSpec | None,
    style_layers: Sequence[str],
    seed: int,
) -> UNet2DConditionModel:
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
    unet = load_denoiser(folders[0])
    for folder in folders[1:]:
        unet = merge_lora(load_lora(unet, folder))
    unet.requires_grad_(False)
    torch.manual_seed(seed)
    if lora is not None:
        add_lora(unet, rank=lora.rank, alpha=lora.alpha)
    add_image_prompt(unet, width, *collect_caption_tokens(rows))
    resolve_layer_scales(unet, dict.fromkeys(style_layers, 1.0))
    return unet


def collect_caption_tokens(rows: ImageRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings (N, E) of train pins with a product, and the tokens (N, TOKENS, D) of their first captions."""
    learnt = {row.pin_id: row for row in rows.index if has_product(row) and row.split == "train"}
    chosen = group_by_bucket(learnt[pin] for pin in select_evenly(list(learnt), MAX_CAPTION_PINS))
    embeddings, tokens = [], []
    for numbers in chosen.values():
        for first in range(0, len(numbers), 64):
            batch = rows.read_batch(numbers[first : first + 64], {"text_states": "text_states"})
            embeddings.append(torch.as_tensor(batch["image"]))
            tokens.append(compute_caption_tokens(torch.as_tensor(batch["text_states"])[:, 0]))
    return torch.cat(embeddings), torch.cat(tokens)
