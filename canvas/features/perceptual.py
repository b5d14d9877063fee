"""Differences of images that a blur cannot hide: local spectra, and the features of any network handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn import functional as F

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two batches of images (B, 3, H, W) in [-1, 1] -> (B,), 0 for equal ones."""


class SpectrumDistance(nn.Module):
    """Mean |log amplitude - log amplitude| of windowed Fourier transforms.

    A pixel loss is best met by the mean of all plausible textures, which is a blur. Amplitudes of small windows ask
    for the right amount of detail at each frequency and direction and let its phase go; focal frequency loss (Jiang
    et al. 2021) keeps it. Windows overlap by half and fade out at their edges (Hann).
    """

    fade: torch.Tensor

    def __init__(self, window: int = 16, floor: float = 0.02) -> None:
        super().__init__()
        self.window = window
        self.floor = floor  # amplitude below which differences do not count: about one grey level
        fade = torch.hann_window(window, periodic=False)
        weight = torch.outer(fade, fade)
        self.register_buffer("fade", weight / weight.square().sum().sqrt(), persistent=False)

    def _log_amplitude(self, images: torch.Tensor) -> torch.Tensor:
        step = self.window // 2
        patches = images.unfold(2, self.window, step).unfold(3, self.window, step) * self.fade
        spectrum = torch.view_as_real(torch.fft.rfft2(patches.float(), norm="ortho"))
        return torch.log(spectrum.square().sum(-1) + self.floor**2) / 2

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the distances, (B,). Raises `ValueError` for images smaller than the window."""
        if min(images.shape[-2:]) < self.window:
            raise ValueError(f"images of {tuple(images.shape[-2:])} are smaller than the window of {self.window}")
        return (self._log_amplitude(images) - self._log_amplitude(targets)).abs().flatten(1).mean(dim=1)


class FeatureDistance(nn.Module):
    """Squared distance of channel-normalised feature maps, summed over maps (LPIPS without its heads, Zhang et al.
    2018). `network` is any frozen module from images in [-1, 1] to maps (B, C, h, w); it gets no gradient."""

    def __init__(self, network: Callable[[torch.Tensor], Sequence[torch.Tensor]]) -> None:
        super().__init__()
        self.network = network
        if isinstance(network, nn.Module):
            network.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target_maps = self.network(targets)
        distances = [
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).flatten(1).mean(dim=1)
            for a, b in zip(self.network(images), target_maps, strict=True)
        ]
        return torch.stack(distances).sum(dim=0)


class ClipFeatures(nn.Module):
    """Feature maps of an open_clip image tower after the blocks `layers` (negative: from the end)."""

    def __init__(self, clip: open_clip.CLIP, layers: Sequence[int]) -> None:
        super().__init__()
        self.visual = clip.visual
        self.layers = list(layers)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return maps (B, width, h, w) of images in [-1, 1]."""
        maps: list[torch.Tensor] = self.visual.forward_intermediates(
            _prepare_images(self.visual, images), indices=self.layers, stop_early=True, intermediates_only=True
        )["image_intermediates"]
        return maps


def compute_image_embeddings(clip: open_clip.CLIP, images: torch.Tensor) -> torch.Tensor:
    """Return normalised embeddings (B, E) of images (B, 3, H, W) in [-1, 1]."""
    embeddings: torch.Tensor = clip.encode_image(_prepare_images(clip.visual, images), normalize=True)
    return embeddings


def _prepare_images(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Normalise images for an open_clip tower, resized as a whole, since a centre crop would drop the edges."""
    size = visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
    mean, std = (torch.tensor(visual.preprocess_cfg[name]).to(images)[:, None, None] for name in ("mean", "std"))
    return ((images + 1) / 2 - mean) / std
