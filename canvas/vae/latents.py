"""Statistics of an autoencoder's latents, and the map between raw latents and the denoiser's.

They stand in the autoencoder's config (`latents_mean`, `latents_std`, `scaling_factor`), where stock pipelines look
for them. A public autoencoder keeps its own `scaling_factor` and `shift_factor`: public denoisers know its latents so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from canvas.pins.image_batches import FrameBatch
from canvas.pins.images import bytes_to_tensor
from canvas.vae.model import Vae, compute_posterior


@dataclass(frozen=True, slots=True)
class LatentScale:
    """Affine map between raw latents and the denoiser's: (raw - mean) / std * scale, as stock diffusers undoes it."""

    mean: torch.Tensor  # (C,)
    std: torch.Tensor  # (C,)
    scale: float

    def normalize(self, raw: torch.Tensor) -> torch.Tensor:
        """Map raw latents (B, C, h, w) to the denoiser's: about zero mean and unit variance."""
        return (raw - self._per_channel(self.mean, raw)) / self._per_channel(self.std, raw) * self.scale

    def denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        """Map the denoiser's latents to raw ones, which the autoencoder decodes."""
        return latents / self.scale * self._per_channel(self.std, latents) + self._per_channel(self.mean, latents)

    @staticmethod
    def _per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return values.to(like)[:, None, None]


def get_latent_scale(vae: Vae) -> LatentScale:
    """Return the map in the autoencoder's config; without statistics, that of its scaling and shift factors."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    channels, shift = vae.config["latent_channels"], vae.config.get("shift_factor") or 0.0
    return LatentScale(
        torch.full((channels,), shift) if mean is None else torch.tensor(mean),
        torch.ones(channels) if std is None else torch.tensor(std),
        float(vae.config["scaling_factor"]),
    )


def store_latent_statistics(vae: Vae, batches: Iterable[FrameBatch]) -> None:
    """Write mean and deviation of each latent channel over `images`, uint8 (B, 3, H, W), to the autoencoder's config.

    The variance includes each posterior's own; the scaling factor becomes 1.

    Raises:
        ValueError: For no image, and for channels that never vary.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        posterior = compute_posterior(vae, bytes_to_tensor(batch["images"].to(vae.device)))
        mean = posterior.mean.detach().double()
        count += mean.numel() // mean.shape[1]
        total = total + mean.sum(dim=(0, 2, 3))
        squares = squares + (mean.square() + posterior.var.detach().double()).sum(dim=(0, 2, 3))
    if not count:
        raise ValueError("latent statistics of no image: give the training images to the autoencoder first")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    if flat := (std < 1e-4).nonzero().flatten().tolist():
        raise ValueError(f"latent channels {flat} never vary: train longer or lower the KL weight")
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)
