"""Image features that judges see by: a network learnt on ImageNet that no loss of the generator may use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 224
"""Of the square that the network sees, as it was trained."""


def trunk_features(images: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
    """Features float32 [N, 1280] of pictures [N, H, W, 3] of one size."""
    import torch
    from torch.nn import functional as F

    from canvas.models.trunk import MEAN, STD, pretrained_trunk

    trunk = pretrained_trunk().eval()
    found = [np.zeros((0, 1280), np.float32)]
    for first in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[first : first + batch_size]).permute(0, 3, 1, 2).float() / 255
        large = F.interpolate(pixels, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        found.append(trunk(pixel_values=(large - MEAN) / STD).last_hidden_state[:, 0].numpy())
    return np.concatenate(found)
