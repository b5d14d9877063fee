"""Borders of cells and tokens, taken out of a decoded image in the domain of its gradients.

A small denoiser says 16 x 16 pixels with each of its tokens, and is a little off in each on its own: skies and walls
become a mosaic. A change across the lines of that grid is as likely as one beside them, so it is made no larger, and
the image is the one whose gradients come nearest to these while it stays near to the decoded one: a screened Poisson
equation (Bhat et al. 2008, Fourier Analysis of the 2D Screened Poisson Equation for Gradient Domain Problems).

B: images, C: channels, H and W: their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

WIDTH = 1
"""Changes to each side of a line that are limited with the one across it: a decoder draws a step over some pixels."""


def remove_mosaic(images: torch.Tensor, sides: Sequence[int], fidelity: float) -> torch.Tensor:
    """Return images (B, C, H, W) of any range without the borders of grids; means stay.

    Args:
        images: Decoded ones; each channel is an image of its own.
        sides: Pixels between the lines of each grid, from the upper left corner; one grid after the other.
        fidelity: Above 0, to the images beside their gradients: an error fades over about 1 / sqrt(fidelity) pixels.
    """
    smooth = images.float()
    for side in sides:
        rows, columns = (_limit_borders(smooth.diff(dim=axis), axis, side) for axis in (2, 3))
        smooth = _fit_gradients(smooth, rows, columns, fidelity)
    return smooth.to(images)


def _limit_borders(change: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    """Return changes between neighbours along an axis, of which those at the grid's lines are no larger than the larger
    of the two beside them: a step that is there alone goes, a slope and what is rough all over stay."""
    limited = change.clone()
    for line in range(side - 1, change.shape[axis], side):
        before, after = line - WIDTH - 1, line + WIDTH + 1
        if before < 0 or after >= change.shape[axis]:
            continue
        most = torch.maximum(change.select(axis, before).abs(), change.select(axis, after).abs())
        for place in range(before + 1, after):
            limited.select(axis, place).clamp_(-most, most)
    return limited


def _fit_gradients(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, fidelity: float) -> torch.Tensor:
    """Return the images (B, C, H, W) of least |gradient - given|^2 + fidelity |image - given|^2; `rows`: given changes
    from row to row (B, C, H - 1, W), `columns`: from column to column (B, C, H, W - 1)."""
    target = fidelity * images
    target[..., :-1, :] -= rows
    target[..., 1:, :] += rows
    target[..., :-1] -= columns
    target[..., 1:] += columns
    (down, down_energy), (across, across_energy) = (_build_waves(size, images) for size in images.shape[-2:])
    waves = (down @ target @ across.T) / (fidelity + down_energy[:, None] + across_energy)
    return down.T @ waves @ across


def _build_waves(size: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosine waves that `size` pixels hold, (size, size) and orthonormal, one a row (DCT-II), and the
    squared changes along each, (size,): eigenvectors and eigenvalues of the second difference."""
    number = torch.arange(size, device=like.device, dtype=torch.float64)
    waves = torch.cos(math.pi / size * number[:, None] * (number + 0.5)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.to(like.dtype), (2 - 2 * torch.cos(math.pi / size * number)).to(like.dtype)
