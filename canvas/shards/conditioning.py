"""What the denoiser is told beside the noisy latents: captions, sizes and crops, the region to paint.

Masks: 1 = product, keep. The denoiser reads their opposite at latent size, the *hole*: 1 = paint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from canvas.masks.composite import max_pool_mask

if TYPE_CHECKING:
    from canvas.train.draws import Draws


def build_size_ids(original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int]) -> tuple[int, ...]:
    """SDXL's six numbers, as stock diffusers orders them: original (height, width), crop (top, left), target
    (height, width)."""
    return (*original, *crop, *target)


def compute_hole(mask: torch.Tensor, cell: int, inflate: int = 0) -> torch.Tensor:
    """Product masks (B, 1, H, W), 1 = keep, as holes (B, 1, H / cell, W / cell), float, 1 = paint.

    A cell with any pixel to paint is painted; `inflate` grows the hole by so many cells on every side, for seams come
    from edges off the cell.
    """
    return max_pool_mask(F.max_pool2d((mask < 0.5).float(), cell), inflate)


def mask_images(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [-1, 1] with 0, mid-grey, where the mask (B, 1, H, W) does not keep, as diffusers does."""
    return images * (mask >= 0.5)


def select_choice(column: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """column[b, choice[b]] of (B, K, ...)."""
    return column[torch.arange(len(column), device=column.device), choice.to(column.device)]


def draw_kept_captions(draws: Draws, dropout: float) -> torch.Tensor:
    """Bool (B,): False where the caption is dropped, so that the denoiser learns guidance's unconditional side."""
    return draws.uniform(len(draws)) >= dropout


def draw_kept_prompts(draws: Draws, caption: float, image: float, both: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool (B,) of captions and of pictures: False where dropped. Shares of samples without their caption alone, their
    picture alone, and both (Ye et al. 2023, section 4.1: 0.05 each)."""
    draw = draws.uniform(len(draws))
    without_caption, without_image = draw < caption, (draw >= caption) & (draw < caption + image)
    without_both = (draw >= caption + image) & (draw < caption + image + both)
    return ~(without_caption | without_both), ~(without_image | without_both)


def drop_embeddings(embedding: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Embeddings (B, ...) with zeros where `keep` is False.

    Zeros are SDXL's empty negative prompt (`force_zeros_for_empty_prompt`), so stock pipelines guide against what was
    trained.
    """
    return embedding * keep.to(embedding).view(-1, *[1] * (embedding.ndim - 1))
