"""What the conditional decoder adds: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """What is added to the autoencoder's decoder."""

    channels: tuple[int, ...]  # of the condition encoder, one width a resolution of the autoencoder, finest first
    layers_per_block: int
    norm_groups: int
    erosion: int  # pixels between the mask's edge and the core, which is exact


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintSpec:
    """How a denoiser makes latents for the decoder to learn on, beside encoded ones."""

    steps: int
    guidance_scale: float
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.guidance_scale < 1:
            raise ValueError(f"painting needs steps, batch_size and guidance_scale of 1 or more, not {self}")
