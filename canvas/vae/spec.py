"""The autoencoder's kind, size, losses and training: params of stages, so this module is light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen

from canvas.pins.frames import CropSpec
from canvas.ranges import Count, Natural, NonNegative
from canvas.train.spec import TrainableParams, Training


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeSpec:
    """Kind and size of the autoencoder; `channels` holds one width a resolution, finest first."""

    kind: Literal["kl", "pixel"]  # kl: diffusers' AutoencoderKL; pixel: PixelAutoencoder
    channels: Annotated[tuple[Count, ...], MinLen(1)]  # one a resolution, finest first
    layers_per_block: Count  # residual blocks a resolution
    latent_channels: Count  # numbers in a latent cell
    patch: Count | None  # side of the pixel-unshuffle (pixel only)
    norm_groups: Count  # of group normalisation; each width is a multiple
    init_from: str | None  # directory or hub id (OWNER/NAME@REVISION) of an autoencoder, or of a pipeline with vae/

    def __post_init__(self) -> None:
        if (self.patch is None) != (self.kind == "kl"):
            raise ValueError(f"vae.patch is {self.patch} for kind {self.kind!r}: give a number for pixel, null for kl")
        if uneven := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(f"vae.channels {uneven} cannot be split into {self.norm_groups} vae.norm_groups")

    @property
    def factor(self) -> int:
        """Pixels along the side of a latent cell."""
        return (self.patch or 1) * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionSpec:
    """Weights of the loss. Each term is a mean over pixels, windows or feature maps, and images."""

    l1: NonNegative  # of the mean absolute difference of pixels
    l2: NonNegative  # of their mean squared difference
    spectrum: NonNegative  # of canvas.features.perceptual.SpectrumDistance
    features: NonNegative  # of the distance of `perceptual`'s features

    def __post_init__(self) -> None:
        if self.l1 + self.l2 == 0:
            raise ValueError("reconstruction weights l1 and l2 are both 0: one must tie the image to its pixels")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarySpec:
    """The PatchGAN against the autoencoder; it starts late, on reconstructions that are no longer easy to tell."""

    weight: NonNegative  # in the autoencoder's loss
    start_step: Natural  # at effort 1
    learning_rate: NonNegative  # of the discriminator
    width: Count  # channels of its first layer
    layers: Count  # strided ones

    def scale(self, training: Training) -> AdversarySpec:
        """Return it with its start at the effort of `training`."""
        return replace(self, start_step=training.scale(self.start_step))


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualSpec:
    """The network of the `features` term: blocks of one of our own image towers."""

    encoder: Literal["first", "second"]  # text-image encoder whose image tower is asked
    layers: Annotated[tuple[Natural, ...], MinLen(1)]  # blocks whose features are compared


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeObjective:
    """What the autoencoder's training minimises, and on which crops."""

    loss: ReconstructionSpec
    kl: NonNegative  # weight of the latents' divergence from a normal distribution
    adversary: AdversarySpec | None  # null: none
    crops: CropSpec

    def scale(self, training: Training) -> VaeObjective:
        """Return it with its adversary's start at the effort of `training`."""
        return replace(self, adversary=self.adversary.scale(training)) if self.adversary else self


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainVaeParams(TrainableParams):
    objective: VaeObjective | None  # null with train: null
    score_batch: Count  # images at once, when scored
    scored_views: Count  # held-out scenes whose reconstructions the judges see; they need truth
    sheet_each: Count  # held-out images of each frame on the sheet

    refused: ClassVar[Mapping[str, str]] = {
        "parallel": "encode and decode are called, which are not gathered from shards, set it to ddp or none",
        "compile": "encode and decode are called, which are not compiled, set it to false",
    }

    def __post_init__(self) -> None:
        if (self.train is None) != (self.objective is None):
            raise ValueError("train_vae: give both train and objective, or null for both")

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if there is nothing to train nor to load, or frames are no whole latent cells."""
        TrainableParams.check_with(self, params)
        vae: VaeSpec = params["vae"]
        if self.train is None and vae.init_from is None:
            raise ValueError("train_vae.train is null: the autoencoder needs training, or name vae.init_from")
        params["frames"].check_cells(vae.factor)
