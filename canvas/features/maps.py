"""Feature maps of frozen networks on a grid of one's own: what a denoiser's hidden states may be aligned with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import open_clip
import torch
from torch import nn
from torch.nn import functional as F

from canvas.features.perceptual import ClipFeatures
from canvas.features.photographs import load_photo_features

Grid = tuple[int, int]  # rows, columns

FeatureMaps = Callable[[torch.Tensor, Grid], torch.Tensor]
"""Images (B, 3, H, W) in [-1, 1] and a grid -> features (B, F, rows, columns)."""


def load_feature_maps(network: str, layer: int, clips: Sequence[open_clip.CLIP], device: torch.device) -> FeatureMaps:
    """Load the network that `FeatureSpec` names; `clips` are both text-image encoders.

    Raises:
        ValueError: A tower has no such block.
    """
    if network == "photographs":
        return PhotoMaps(layer).to(device)
    clip = clips[("first", "second").index(network)]
    blocks = len(clip.visual.transformer.resblocks)
    if layer >= blocks:
        raise ValueError(f"encode.features.layer is {layer}: the {network} image tower has blocks 0 to {blocks - 1}")
    return TowerMaps(clip, layer)


class PhotoMaps(nn.Module):
    """Maps of open_nsfw (canvas.features.photographs), of images scaled to have one number a place of the grid."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.network = load_photo_features([layer])
        self.stride = 2 ** (layer + 1)

    def forward(self, images: torch.Tensor, grid: Grid) -> torch.Tensor:
        size = grid[0] * self.stride, grid[1] * self.stride
        (maps,) = self.network(F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False))
        return F.adaptive_avg_pool2d(maps, grid)


class TowerMaps(nn.Module):
    """Maps of a block of an open_clip image tower, which sees a frame as a square; resized to the grid."""

    def __init__(self, clip: open_clip.CLIP, layer: int) -> None:
        super().__init__()
        self.network = ClipFeatures(clip, [layer])

    def forward(self, images: torch.Tensor, grid: Grid) -> torch.Tensor:
        (maps,) = self.network(images)
        return F.interpolate(maps.float(), size=grid, mode="bilinear", antialias=True, align_corners=False)
