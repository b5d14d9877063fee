"""Image features that judges see by: a network learnt on ImageNet that no loss of the generator may use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from canvas.models.trunk import Trunk

SIDE = 224
"""Of the square that the network sees, as it was trained."""


def trunk_features(images: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
    """Features float32 [N, 1280] of pictures [N, H, W, 3] of one size."""
    import torch
    from torch.nn import functional as F

    trunk = _trunk()
    found = [np.zeros((0, 1280), np.float32)]
    for first in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[first : first + batch_size]).permute(0, 3, 1, 2).float() / 255
        large = F.interpolate(pixels, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        found.append(trunk(pixel_values=_normalised(large)).last_hidden_state[:, 0].numpy())
    return np.concatenate(found)


def trunk_maps(images: torch.Tensor) -> list[torch.Tensor]:
    """Feature maps at strides 2 to 32 of pictures (B, 3, S, S) in [-1, 1], S a multiple of 32: what
    canvas.models.perceptual.FeatureDistance compares."""
    return _trunk().pyramid(_normalised((images + 1) / 2))


@cache
def _trunk() -> Trunk:
    """Loaded once a process: it never changes."""
    from canvas.models.trunk import pretrained_trunk

    return pretrained_trunk().eval()


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    from canvas.models.trunk import MEAN, STD

    return (pixels - MEAN) / STD
