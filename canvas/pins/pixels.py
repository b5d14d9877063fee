"""Images between uint8 and the range [-1, 1] of the networks."""

from __future__ import annotations

import torch


def bytes_to_tensor(images: torch.Tensor) -> torch.Tensor:
    """uint8 as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def tensor_to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Floats, clamped to [-1, 1], as uint8; the inverse of `from_bytes`."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
