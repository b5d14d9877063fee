"""Batches that frozen networks see in parts: their largest maps stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

PIXELS_PER_PART = 8 * 224 * 224
"""Of a part. On a CPU a whole batch is half as slow again: its maps are memory that is newly mapped each
time; parts of half the size cost a quarter more in bf16, in fp32 nothing (docs/experiments/)."""


def split_batch(images: torch.Tensor) -> Sequence[torch.Tensor]:
    """(B, C, H, W) -> parts of at least one image and at most PIXELS where that is more, in order, channels_last."""
    count = max(1, PIXELS_PER_PART // (images.shape[2] * images.shape[3]))
    return images.contiguous(memory_format=torch.channels_last).split(count)
