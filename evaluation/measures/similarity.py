"""Similarity of images to their targets, pixel by pixel. Images are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import torch
from torch.nn import functional as F

PIXEL_RANGE = 2.0  # width of the range [-1, 1]


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, (B,)."""
    error = (images.clamp(-1, 1) - targets).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(PIXEL_RANGE**2 / error)


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity on luma, (B,), Gaussian window 11, sigma 1.5 (Wang et al. 2004, eq. 13)."""
    luma = torch.tensor([0.299, 0.587, 0.114]).to(images)
    x, y = ((batch.clamp(-1, 1) * luma[:, None, None]).sum(dim=1, keepdim=True) for batch in (images, targets))
    offset = torch.arange(11, device=x.device, dtype=x.dtype) - 5
    gaussian = torch.exp(-offset.square() / (2 * 1.5**2))
    window = torch.outer(gaussian, gaussian)[None, None] / gaussian.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values, window)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    small, medium = (0.01 * PIXEL_RANGE) ** 2, (0.03 * PIXEL_RANGE) ** 2
    similarity = ((2 * mean_x * mean_y + small) * (2 * covariance + medium)) / (
        (mean_x**2 + mean_y**2 + small) * (var_x + var_y + medium)
    )
    return similarity.flatten(1).mean(dim=1)
