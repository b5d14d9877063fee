"""Sizes of the denoiser: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserSpec:
    """Widths and depths of the UNet, one entry a resolution, finest first."""

    channels: tuple[int, ...]
    layers_per_block: int
    transformer_layers: tuple[int, ...]  # transformer blocks after each residual block; 0: no attention there
    heads: tuple[int, ...]
    size_embedding: int  # width of the sinusoidal embedding of each of the SIZE_IDS
    norm_groups: int
    init_from: str | None  # directory or hub id of a diffusers UNet, or of a pipeline that holds one in unet/

    def __post_init__(self) -> None:
        for name in ("transformer_layers", "heads"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(
                    f"denoiser.{name} has {len(getattr(self, name))} entries for {len(self.channels)} resolutions: "
                    "give one an entry of denoiser.channels"
                )
        if uneven := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(f"denoiser.channels {uneven} cannot be split into {self.norm_groups} denoiser.norm_groups")
