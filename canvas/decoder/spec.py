"""The conditional decoder's size and training: params of stages, so this module is light to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, MinLen

from canvas.denoiser.spec import SamplingSpec
from canvas.ranges import Count, Natural, NonNegative
from canvas.shards.spec import EncodingSpec, estimate_index_memory
from canvas.train.spec import Train, TrainableParams
from canvas.vae.spec import AdversarySpec, ReconstructionSpec

ENCODED_PIN_BYTES = 400_000
"""Bytes of a pin's image and matte, as the tables hold them: assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicSpec:
    """How borders of a denoiser's cells and tokens are taken out of decoded images (canvas.decoder.mosaic)."""

    sides: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1)]  # pixels between the lines of each grid, one by one
    fidelity: Annotated[float, Gt(0)]  # to the decoded image beside its gradients: less changes more, and farther away


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """What is added to the autoencoder's decoder."""

    channels: Annotated[tuple[Count, ...], MinLen(1)]
    """Widths of the condition encoder, one a resolution of the autoencoder, finest first."""
    layers_per_block: Count  # residual blocks a resolution
    norm_groups: Count  # of group normalisation; each width is a multiple
    erosion: Natural  # pixels between the mask's edge and the core, which is exact
    mosaic: MosaicSpec | None  # taken out; null: stays


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainDecoderParams(TrainableParams):
    train: Train | None  # null: the stage is skipped, and the autoencoder's own decoder is used
    latent_noise: NonNegative  # largest deviation of the noise on encoded latents, which have deviation 1
    loss: ReconstructionSpec
    adversary: AdversarySpec | None  # null: none
    sampling: SamplingSpec  # of latents for the decoder to learn on, beside encoded ones
    pins: Count  # product pins of the train split to learn on, spread evenly, with encoded latents
    painted_pins: Count  # of these, with generated latents too
    scored_pins: Count  # held-out product pins, scored both ways
    seam_reach: Count  # pixels on each side of the product's edge that count as its seam
    sheet_pins: Count  # held-out pins on the sheet

    refused: ClassVar[Mapping[str, str]] = {
        "parallel": "the decoder's blocks are called one by one, not gathered from shards, set it to ddp or none"
    }


def estimate_decoder_memory(
    train_decoder: TrainDecoderParams, encode: EncodingSpec, pins: int, weights: Mapping[str, int]
) -> Iterator[tuple[str, int, str]]:
    """Yield what a training holds: pins as the tables have them, the denoiser in float32, the shards' index."""
    if train_decoder.train is None:
        return
    learnt, scored, denoiser = train_decoder.pins, train_decoder.scored_pins, weights["models/inpaint"]
    _, index, arithmetic = next(estimate_index_memory(encode, pins))
    size = (learnt + scored) * ENCODED_PIN_BYTES + 4 * denoiser + index
    held = f"({learnt:,} + {scored:,}) x {ENCODED_PIN_BYTES:,} bytes (assumed)"
    yield "", size, f"({held} + {denoiser:,} x 4 (denoiser) + {arithmetic})"
