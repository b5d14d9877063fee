"""Params of the UNet: light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from canvas.ranges import Count, Natural


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetSpec:
    """Widths and depths of the UNet."""

    channels: Annotated[tuple[Count, ...], MinLen(1)]  # one a resolution, finest first
    layers_per_block: Count  # residual blocks a resolution
    transformer_layers: tuple[Natural, ...]  # transformer blocks after each residual block; 0: no attention there
    heads: tuple[Count, ...]  # of attention, one a resolution
    size_embedding: Count  # width of the sinusoidal embedding of each of the SIZE_IDS
    norm_groups: Count  # of group normalisation; each of the channels is a multiple

    def __post_init__(self) -> None:
        for name, values in (("transformer_layers", self.transformer_layers), ("heads", self.heads)):
            if len(values) != len(self.channels):
                raise ValueError(
                    f"denoiser.unet.{name} has {len(values)} entries for {len(self.channels)} resolutions: "
                    "give one an entry of denoiser.unet.channels"
                )
        if uneven := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(
                f"denoiser.unet.channels {uneven} cannot be split into {self.norm_groups} denoiser.unet.norm_groups"
            )
