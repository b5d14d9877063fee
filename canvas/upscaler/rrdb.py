"""The network of ESRGAN and Real-ESRGAN x4plus, whose public weights enlarge a background and invent its detail.

Residual-in-residual dense blocks (Wang et al. 2018, 2021) at the small image's resolution, then two doublings. Modules
have the names of the public files, so their weights load strictly. The licence of Real-ESRGAN is BSD-3-Clause.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from canvas.upscaler.model import compute_factor, fill_product

SCALE = 4
"""By which the network itself enlarges."""
OVERLAP = 16
"""Pixels of the small image that a tile reads round itself. By 23 blocks a pixel of the large one depends on some 350
to each side, but little on far ones, for a block adds a fifth of what it says; Real-ESRGAN's own program takes 10."""
RESIDUAL = 0.2
"""Share of what a block says that is added to its input."""
SLOPE = 0.2
"""Slope of the leaky rectifier below 0."""


class RrdbUpscaler(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Small image and full-size product -> full-size image of the background, 2 or 4 times as large.

    Args:
        features: Channels.
        blocks: Residual blocks of three dense ones each.
        growth: Channels that each convolution of a dense block adds.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualDenseBlocks(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    @property
    def reach(self) -> int:
        """Pixels of the small image that a tile reads round itself: what is seen of the network's own reach."""
        return OVERLAP

    def forward(self, small: torch.Tensor, product: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Enlarge backgrounds as `Upscaler.forward` does.

        The network was taught photographs alone: it reads background in the product's place, as the other one's linear
        filter does, so no colour of `product` spreads over its edge. 2 times is 4 times, averaged down.
        """
        factor = compute_factor(small, alpha)
        large = self.enlarge_images((fill_product(small, alpha, factor) + 1) / 2)
        return F.avg_pool2d(large, SCALE // factor) * 2 - 1

    def enlarge_images(self, images: torch.Tensor) -> torch.Tensor:
        """Enlarge images (B, 3, h, w) in [0, 1] to (B, 3, 4 * h, 4 * w), about [0, 1]."""
        x = self.conv_first(images)
        x = x + self.conv_body(self.body(x))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        enlarged: torch.Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return enlarged


class ResidualDenseBlocks(nn.Module):
    """Three dense blocks beside a shortcut."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + RESIDUAL * residual


class DenseBlock(nn.Module):
    """Five convolutions, each of which reads all before it, beside a shortcut."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            read = torch.cat([read, F.leaky_relu(layer(read), SLOPE)], dim=1)
        residual: torch.Tensor = self.conv5(read)
        return x + RESIDUAL * residual
