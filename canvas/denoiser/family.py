"""What a kind of network tells of itself, so that everything else about denoisers is written once.

A family is a folder beside this file with one object that has these members; `canvas.denoiser.loading` lists them all.
Models of a family are diffusers' own classes, so what is trained here loads in stock pipelines.

N: latents in a pass, C: latent channels, h and w: latent size. L and D: length and width of the text states, P: width
of the pooled text, E: of an image embedding. K: numbers that a hole has for each latent cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from diffusers import ModelMixin
from torch import nn

Denoiser: TypeAlias = ModelMixin
"""A network of one of the families."""

SIZE_IDS = 6
"""Numbers of SDXL's added conditioning: original (h, w), crop (top, left), target (h, w)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserCondition:
    """What the network reads beside N noisy latents and their timestep."""

    states: torch.Tensor  # (N, L, D)
    pooled: torch.Tensor  # (N, P)
    sizes: torch.Tensor  # (N, SIZE_IDS)
    images: list[torch.Tensor] | None  # image embeddings, (N, 1, E) a set; None: a network without image prompts
    guidance: torch.Tensor | None = None
    """(N,), the guidance scale that a network distilled with guidance reads; None: 1, none, as in training."""

    def select_rows(self, rows: torch.Tensor | slice) -> DenoiserCondition:
        """Return the condition of some of the N."""
        return DenoiserCondition(
            states=self.states[rows],
            pooled=self.pooled[rows],
            sizes=self.sizes[rows],
            images=None if self.images is None else [image[rows] for image in self.images],
            guidance=None if self.guidance is None else self.guidance[rows],
        )


Change: TypeAlias = torch.Tensor | None
"""What a network's blocks did to its image tokens, for the rows of a condition, with which a later step may spare them;
None: not known, or not kept."""

Predict: TypeAlias = Callable[[torch.Tensor, torch.Tensor, Change], tuple[torch.Tensor, Change]]
"""(noisy latents (N, C, h, w), timestep, change to take over) -> predictions for the rows of a condition, N, or 2 N
with the unconditional half of guidance first; and the change."""

Prepare: TypeAlias = Callable[
    [Denoiser, DenoiserCondition, torch.Tensor | None, torch.Tensor | None, tuple[int, int]], Predict
]
"""(network, condition of N or 2 N rows, hole (N, K, h, w), masked latents (N, C, h, w), (h, w)) -> the network under
that condition; both None: text-to-image. Its weights must not change meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSizes:
    """Widths of what a network reads."""

    channels: int  # of latents and what inpainting adds to them
    text: int  # D
    pooled: int  # P


def check_layer(layer: str, layers: Sequence[str]) -> None:
    """Raise ValueError if the block `layer` is none of `layers`."""
    if layer not in layers:
        raise ValueError(f"feature_alignment.layer is {layer!r}: the denoiser has {', '.join(layers)}")


class DenoiserFamily(Protocol):
    """One kind of network: how it is built, what it reads, and where its adapters go."""

    kind: str  # its name in params
    model_class: type[Any]  # of diffusers
    component: str  # its folder in a stage's output, and its name in stock pipelines
    patch: int  # latent cells on a side that the network reads as one: sides of latents are multiples
    projection_names: re.Pattern[str]  # ends of the names of layers that read the text states or image prompts alone
    plain_processor: type[Any]  # of an attention layer without image tokens
    image_processor: type[nn.Module]  # with them
    keeps_change: bool  # `predict_from_change` can be called
    starts_values_from_text: bool  # an image's values come in where the text's do, so they may start as these

    # network

    def build_config(
        self, spec: Any, *, latent_channels: int, sample_size: int, text_width: int, pooled_width: int
    ) -> dict[str, Any]:
        """Return the diffusers config of a text-to-image network.

        Args:
            spec: Widths and depths, the section of that kind.
            latent_channels: C.
            sample_size: Side of the latents in training.
            text_width: D.
            pooled_width: P.
        """

    def initialize_weights(self, model: Denoiser, spec: Any, /) -> None:
        """Bring the random weights of a new network, in place, to where its spec lets them start."""

    def check_architecture(self, actual: Mapping[str, Any], config: Mapping[str, Any], source: str, /) -> None:
        """Raise ValueError if the config of the network at `source` is another than the params say; it may have the
        inputs of inpainting."""

    def get_input_sizes(self, config: Mapping[str, Any]) -> InputSizes:
        """Return the widths of what a network of that config reads."""

    def reads_guidance(self, config: Mapping[str, Any], /) -> bool:
        """Return whether a network of that config was distilled with guidance: it reads the scale as an input, and a
        guided step is one pass."""

    # inpainting

    def has_inpaint_channels(self, config: Mapping[str, Any], /) -> bool:
        """Return whether a network of that config reads hole and masked latents, too."""

    def count_hole_channels(self, cell: int) -> int:
        """Return K: how many numbers a hole has for each latent cell, which has `cell` pixels on a side."""

    def compute_hole(self, mask: torch.Tensor, cell: int, inflate: int) -> torch.Tensor:
        """Return masks (B, 1, H, W), 1 = keep, as holes (B, K, h, w), 1 = generate, grown by `inflate` cells."""

    def count_inpaint_channels(self, latent_channels: int, cell: int) -> int:
        """Return `in_channels` of an inpainting network's config."""

    def add_inpaint_channels(self, model: Denoiser, cell: int, /) -> Denoiser:
        """Give a text-to-image network the inputs of inpainting, in place, their weights zero; returns it. Raises
        ValueError if it has other inputs than latents."""

    def build_inpaint_input(self, noisy: torch.Tensor, hole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Concatenate noisy latents (N, C, h, w) with hole and masked latents, of N or 1, along the channels."""

    def predict(
        self, model: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, condition: DenoiserCondition, /
    ) -> torch.Tensor:
        """Return the prediction (N, C, h, w) for noisy latents, of inpainting with `build_inpaint_input`'s channels."""

    # sampling

    def choose_preparation(self, model: Denoiser, /) -> Prepare | None:
        """Return what prepares the network, as it is now, for steps that give what `predict` does up to rounding, by
        fewer operations; None: nothing, `predict` is called."""

    def predict_from_change(
        self,
        model: nn.Module,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        condition: DenoiserCondition,
        change: Change,
        /,
    ) -> tuple[torch.Tensor, Change]:
        """Return what `predict` does, and what the blocks did; or, with a `change`, the prediction without a pass
        through the blocks."""

    # alignment

    def get_hidden_width(self, model: Denoiser, layer: str) -> int:
        """Return how many numbers a hidden state of an image has in the output of the block `layer`; ValueError if the
        network has no such block."""

    def get_hidden_states(self, output: Any) -> torch.Tensor:
        """Return the image's hidden states in a block's output, a map (N, W, rows, columns) or tokens (N, W, T)."""

    # adapters

    def has_image_layer(self, layer: str) -> bool:
        """Return whether the attention layer of that name attends to image tokens where there are some."""

    def build_image_processor(self, model: Denoiser, layer: str) -> nn.Module:
        """Return a new `image_processor` for a layer."""

    def attach_projection(self, model: Denoiser, projection: nn.Module | None) -> None:
        """Let the network read image embeddings through `projection`; None: no more."""

    def get_image_number(self, place: int) -> int:
        """Return the number in an adapter's file of the image layer at `place` among them."""

    def get_text_projection(self, model: Denoiser, layer: str, kind: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias with which a layer makes its keys ("k") or values ("v") of text states."""

    def get_block(self, layer: str) -> str:
        """Return the name of the block that an attention layer is in: the least part that styles are switched by."""

    def save_lora(self, directory: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a LoRA's weights and peft config as stock pipelines load them."""

    def load_lora(self, model: Denoiser, directory: Path, file: str, name: str) -> None:
        """Add the LoRA in a file that `save_lora` or stock diffusers wrote."""
