"""The network of photographs as a model of timm, `open_nsfw`: a trunk whose weights ship in a package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import register_model
from torch import nn

from canvas.features.photographs import WIDTHS, PhotoFeatures, load_photo_features

NAME = "open_nsfw"


class PhotoTrunk(nn.Module):
    """Frozen maps of `layers` (canvas.features.photographs), pooled; only their normalisation follows training.

    Images (B, 3, H, W) in [-1, 1] -> (B, num_features): mean and maximum of each channel, of mean 0 and variance 1.
    """

    def __init__(self, layers: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # of timm: how images are prepared
        self.maps = PhotoFeatures(layers)
        self.num_features = 2 * sum(WIDTHS[layer] for layer in layers)
        self.norm = nn.BatchNorm1d(self.num_features, affine=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = [values for maps in self.maps(images) for values in (maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)))]
        features: torch.Tensor = self.dropout(self.norm(torch.cat(pooled, dim=1)))
        return features


@register_model
def open_nsfw(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    *,
    layers: Sequence[int] = (1, 2, 3, 4),
    dropout: float = 0.5,
    num_classes: int = 0,
) -> PhotoTrunk:
    """Build the trunk for `timm.create_model`; there is no classifier, so `num_classes` must be 0."""
    if num_classes:
        raise TypeError(f"{NAME} has no classifier: num_classes must be 0, not {num_classes}")
    trunk = PhotoTrunk(layers, dropout)
    if pretrained:
        trunk.maps = load_photo_features(layers)
    return trunk
