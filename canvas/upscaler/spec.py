"""The upscaler's size and training: params of stages, so this module is light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from canvas.ranges import Count
from canvas.train.spec import Train, TrainableParams
from canvas.vae.spec import ReconstructionSpec, VaeSpec

FACTORS = (2, 4)
"""By which the network enlarges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscalerSpec:
    """The network that enlarges backgrounds; it works at the small image's resolution."""

    kind: Literal["regression", "diffusion"]  # the mean of what may have been; or that and generated detail beside it
    width: Count  # channels
    blocks: Count  # residual blocks, two convolutions each; both factors share them
    steps: Count  # of kind diffusion: passes of its network


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainUpscalerParams(TrainableParams):
    init_from: str | None  # what this stage wrote, or a directory, file or hub id of the Real-ESRGAN class; null: none
    train: Train | None  # null: init_from as it is, or without one no upscaler: a cubic filter enlarges backgrounds
    side: Count  # pixels of the square images to learn on; their small twins have a half and a quarter of it
    images: Count  # to learn on, spread evenly where the pins hold more
    scored_images: Count  # held-out ones, scored at both factors
    crop: Count  # pixels of the side of the small crops that a step sees
    loss: ReconstructionSpec  # its features are those learnt on photographs
    sheet_images: Count  # held-out ones on the sheet

    refused: ClassVar[Mapping[str, str]] = {
        "parallel": "the network is small, and each step runs the layers of one factor, set it to ddp or none",
        "compile": "the factors have different shapes and layers, set it to false",
    }

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if small images are no whole latent cells, or smaller than a crop."""
        TrainableParams.check_with(self, params)
        vae: VaeSpec = params["vae"]
        if self.side % (smallest := max(FACTORS) * vae.factor):
            raise ValueError(
                f"train_upscaler.side is {self.side}: the autoencoder reads a quarter of it in cells of {vae.factor} "
                f"pixels, so give a multiple of {smallest}"
            )
        if self.crop > (most := self.side // max(FACTORS)):
            raise ValueError(f"train_upscaler.crop is {self.crop}: small images have {most} pixels a side, give less")
