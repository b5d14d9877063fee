"""Kind and size of the autoencoder: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeSpec:
    """Kind and size of the autoencoder; `channels` holds one width a resolution, finest first."""

    kind: Literal["kl", "pixel"]  # kl: diffusers' AutoencoderKL; pixel: PixelAutoencoder
    channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    patch: int | None  # side of the pixel-unshuffle (pixel only)
    norm_groups: int
    init_from: str | None  # directory or hub id of a diffusers autoencoder, or of a pipeline that holds one in vae/

    def __post_init__(self) -> None:
        if (self.patch is None) != (self.kind == "kl"):
            raise ValueError(f"vae.patch is {self.patch} for kind {self.kind!r}: give a number for pixel, null for kl")
        if uneven := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(f"vae.channels {uneven} cannot be split into {self.norm_groups} vae.norm_groups")

    @property
    def factor(self) -> int:
        """Pixels along the side of a latent cell."""
        return (self.patch or 1) * 2 ** (len(self.channels) - 1)
