"""Weights of the losses on pictures: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from canvas.train.spec import Training


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionSpec:
    """Weights of the loss. Each term is a mean over pixels, windows or feature maps, and pictures."""

    l1: float
    l2: float
    spectrum: float  # canvas.features.perceptual.SpectrumDistance
    features: float  # the injected perceptual network

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "spectrum", "features"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"reconstruction weight {name} is {value}: it must be 0 or more")
        if self.l1 + self.l2 == 0:
            raise ValueError("reconstruction weights l1 and l2 are both 0: one must tie the picture to its pixels")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarySpec:
    """The PatchGAN against the autoencoder; it starts late, on reconstructions that are no longer easy to tell."""

    weight: float
    start_step: int  # at effort 1
    learning_rate: float
    width: int
    layers: int

    def scale(self, training: Training) -> AdversarySpec:
        """Return it with its start at the effort of `training`."""
        return replace(self, start_step=training.scale(self.start_step))


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualSpec:
    """The network of the `features` term: blocks of one of our own image towers."""

    encoder: Literal["first", "second"]
    layers: tuple[int, ...]
