"""The network that enlarges a generated background, given the product at full resolution.

One trunk of convolutions at the small image's resolution, as in sub-pixel networks (Shi et al. 2016), and a head for
each factor: 4 times costs as much as 2 times, where two passes would cost five times as much. What the head says is
added to a linear filter of 5 x 5 pixels, which starts as the cubic one and is then fitted by least squares. The trunk
sees the product on the small image; the filter sees background in its place, so that no colour of it spreads. The
network has no normalisation and looks at no mean of the image, so a tile with its surroundings gives what the whole
gives.

B: batch, h and w: size of the small image, s: factor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from canvas.upscaler.spec import FACTORS, UpscalerSpec
from canvas.vae.model import zero_module

FILTER_SIDE = 5
"""Pixels of the linear filter's side: the cubic one reads 4 x 4, of which every phase lies within 5 x 5."""
FILL_SIDE = 7
"""Pixels of the side of the windows whose background stands for the product's pixels: more than the filter reaches."""
FILLED_ALPHA = 0.1
"""Share of a small pixel that is product from which background stands for it."""
RIDGE = 1e-5
"""How firmly the least squares hold to the cubic filter: the variance below which inputs do not count."""
LEAST_ERROR = 1e-4
"""Squared error, in [-1, 1], up to which images count alike: about one grey level."""


class Upscaler(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Small image and full-size product -> full-size image of the background, 2 or 4 times as large."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stems = build_stems(width, 4, small_channels=3)
        self.trunk = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.heads = build_heads(width)
        self.filters = nn.ModuleDict({str(factor): build_cubic_filter(factor) for factor in FACTORS})

    @classmethod
    def from_spec(cls, spec: UpscalerSpec) -> Upscaler:
        """Build it untrained: it enlarges as a cubic filter does."""
        return cls(width=spec.width, blocks=spec.blocks)

    @property
    def reach(self) -> int:
        """Pixels of the small image, on each side, that a pixel of the large one depends on."""
        return max(2 + 2 * len(self.trunk), FILTER_SIDE // 2 + FILL_SIDE // 2)

    def forward(self, small: torch.Tensor, product: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Enlarge backgrounds.

        Args:
            small: Generated images (B, 3, h, w) in [-1, 1].
            product: Its colours at full size (B, 3, s * h, s * w) in [-1, 1].
            alpha: Its opacity (B, 1, s * h, s * w), 0 to 1.

        Returns:
            Images (B, 3, s * h, s * w), about [-1, 1]; the product is not yet put back on them.
        """
        factor = compute_factor(small, alpha)
        colours = product * alpha
        pasted = paste_small(small, colours, alpha, factor)
        condition = F.pixel_unshuffle(torch.cat([colours, alpha], dim=1), factor)
        x = self.stems[str(factor)](torch.cat([pasted, condition], dim=1))
        for block in self.trunk:
            x = block(x)
        background = fill_product(small, alpha, factor)
        return F.pixel_shuffle(self.heads[str(factor)](x) + self.filters[str(factor)](background), factor)

    @torch.no_grad()
    def fit_filter(self, examples: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Fit the linear filter of one factor by least squares on backgrounds.

        An image counts by the inverse of the error that the filter leaves in it so far: else the few that are all
        leaves and gravel would decide for all.

        Args:
            examples: Small images and alphas as `forward` takes them, and the images that are to come out.
        """
        inputs = 3 * FILTER_SIDE**2 + 1
        squares, products, rows, factor = torch.zeros(inputs, inputs).double(), torch.zeros(()), 0.0, 0
        for small, alpha, targets in examples:
            factor = alpha.shape[-1] // small.shape[-1]
            background = fill_product(small, alpha, factor)
            outside = 1 - F.max_pool2d(alpha, factor)  # the product is put back anyway
            wanted = F.pixel_unshuffle(targets, factor)
            error = (self.filters[str(factor)](background) - wanted).square().mean(1, keepdim=True) * outside
            left = error.sum((1, 2, 3), keepdim=True) / outside.sum((1, 2, 3), keepdim=True).clamp(min=1)
            weight = _list_pixels(outside / (left + LEAST_ERROR))
            padded = F.pad(background, [FILTER_SIDE // 2] * 4, "replicate")
            columns = F.unfold(padded, FILTER_SIDE).transpose(1, 2).flatten(0, 1).double()
            columns = torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1)
            squares = squares + columns.T @ (weight * columns)
            products = products + columns.T @ (weight * _list_pixels(wanted))
            rows += float(weight.sum())
        layer = cast(nn.Conv2d, self.filters[str(factor)])
        bias = layer.get_parameter("bias")
        before = torch.cat([layer.weight.flatten(1), bias[:, None]], dim=1).T.double()
        ridge = RIDGE * max(rows, 1.0) * torch.eye(inputs).double()
        fitted = torch.linalg.solve(squares + ridge, products + ridge @ before).T.float()
        layer.weight.copy_(fitted[:, :-1].view_as(layer.weight))
        bias.copy_(fitted[:, -1])


def build_stems(width: int, channels: int, *, small_channels: int = 0) -> nn.ModuleDict:
    """Build a convolution for each factor, of images of `channels` at full size, brought to the small image's
    resolution, beside those of `small_channels` that have it."""
    return nn.ModuleDict(
        {str(factor): nn.Conv2d(small_channels + channels * factor**2, width, 3, padding=1) for factor in FACTORS}
    )


def build_heads(width: int) -> nn.ModuleDict:
    """Build a convolution for each factor, zero before it is trained, that says colours at full size."""
    return nn.ModuleDict(
        {str(factor): zero_module(nn.Conv2d(width, 3 * factor**2, 3, padding=1)) for factor in FACTORS}
    )


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, without normalisation (Lim et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.second(F.relu(self.first(x)))
        return x + residual


def compute_factor(small: torch.Tensor, alpha: torch.Tensor) -> int:
    """Return by how much `alpha` (B, 1, s * h, s * w) is larger than `small` (B, 3, h, w).

    Raises ValueError if it is none of FACTORS, or not the same in height and width.
    """
    factor = alpha.shape[-1] // small.shape[-1]
    if factor not in FACTORS or alpha.shape[-2:] != (factor * small.shape[-2], factor * small.shape[-1]):
        raise ValueError(f"no factor of {FACTORS} leads from {tuple(small.shape)} to {tuple(alpha.shape)}")
    return factor


def paste_small(small: torch.Tensor, colours: torch.Tensor, alpha: torch.Tensor, factor: int) -> torch.Tensor:
    """Put the product on small images: colours, which are times alpha, and alpha averaged down, so that its edge lies
    where the full-size one does, to the fraction of a pixel."""
    return (1 - F.avg_pool2d(alpha, factor)) * small + F.avg_pool2d(colours, factor)


def fill_product(small: torch.Tensor, alpha: torch.Tensor, factor: int) -> torch.Tensor:
    """Return small images (B, 3, h, w) with the background's mean colour nearby in the product's place, so that no
    filter spreads the product over its edge. Further in than FILL_SIDE / 2 they stay as they are."""
    background = (F.avg_pool2d(alpha, factor) < FILLED_ALPHA).to(small.dtype)
    share, total = (
        F.avg_pool2d(x, FILL_SIDE, stride=1, padding=FILL_SIDE // 2) for x in (background, background * small)
    )
    nearby = total / share.clamp(min=1e-3)
    return torch.where(share > 1e-3, background * small + (1 - background) * nearby, small)


def _list_pixels(values: torch.Tensor) -> torch.Tensor:
    """Return (B, C, h, w) as rows of pixels (B * h * w, C)."""
    return values.flatten(2).transpose(1, 2).flatten(0, 1).double()


def build_cubic_filter(factor: int) -> nn.Conv2d:
    """Build the convolution (3 -> 3 * factor**2 channels) that enlarges by a cubic filter, once it is shuffled."""
    layer = nn.Conv2d(3, 3 * factor**2, FILTER_SIDE, padding=FILTER_SIDE // 2, padding_mode="replicate")
    middle = FILTER_SIDE // 2
    with torch.no_grad():
        layer.weight.zero_()
        layer.get_parameter("bias").zero_()
        for row in range(FILTER_SIDE):
            for column in range(FILTER_SIDE):
                impulse = torch.zeros(1, 1, 2 * FILTER_SIDE + 1, 2 * FILTER_SIDE + 1)
                impulse[0, 0, FILTER_SIDE + row - middle, FILTER_SIDE + column - middle] = 1
                large = F.interpolate(impulse, scale_factor=float(factor), mode="bicubic", align_corners=False)
                phases = F.pixel_unshuffle(large, factor)[0, :, FILTER_SIDE, FILTER_SIDE]
                for channel in range(3):
                    layer.weight[channel * factor**2 : (channel + 1) * factor**2, channel, row, column] = phases
    return layer
