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
