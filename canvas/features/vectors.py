"""Vectors of images at unit length, and batches of images in the parts that frozen networks read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # [N, E], unit length

PIXELS_PER_PART = 8 * 224 * 224
"""Pixels of a part, whose largest maps stay in the cache. On a CPU a whole batch is half as slow again: its maps are
memory that is newly mapped each time; parts of half the size cost a quarter more in bf16, in fp32 nothing
(docs/experiments/)."""


def normalize_vectors(vectors: Vectors) -> Vectors:
    """Return each row at unit length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def split_batch(images: torch.Tensor) -> Sequence[torch.Tensor]:
    """Split (B, C, H, W) in order into channels_last parts of PIXELS_PER_PART at most, or of one image."""
    count = max(1, PIXELS_PER_PART // (images.shape[2] * images.shape[3]))
    return torch.split(images.contiguous(memory_format=torch.channels_last), count)
