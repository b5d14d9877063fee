"""What of a pin goes into the training shards, and which are selected: params of stages, light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from canvas.layout.spec import MAX_PRODUCTS
from canvas.masks.simulation import HoleSpec, MaskErrors
from canvas.pins.frames import CropSpec
from canvas.ranges import Count, Natural, NonNegative, Share
from canvas.train.spec import Precision

CAPTION_BYTES = 900
"""Bytes of a caption as held while captions are read (canvas.pins.captions.read_captions): measured of a process,
750 for captions of 60 letters and 1,160 for 200."""

INDEX_ROW_BYTES = 630
"""Bytes of a row of shards while their index is made (canvas.shards.rows.ShardRows), measured; 310 of them stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSpec:
    """Feature maps of a frozen network beside each view: what a denoiser's hidden states may be aligned with."""

    network: Literal["photographs", "first", "second"]  # open_nsfw's, or the image tower of a text-image encoder
    layer: Natural  # whose output is kept: 0 to 4 of photographs, of a tower a block from 0
    cells: Count  # latent cells of a side that one feature stands for; 2 is a token of denoiser.kind dit

    def __post_init__(self) -> None:
        if self.network == "photographs" and self.layer > 4:
            raise ValueError(f"encode.features.layer is {self.layer}: photographs has layers 0 to 4")


FrameShare = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollageSpec:
    """How often products of other pins are laid on a scene, how many, and how large they are in the frame."""

    share: Share  # of the views after the first of train pins that show a scene alone
    products: Annotated[int, Ge(1), Le(MAX_PRODUCTS)]  # at most; 1 to so many are equally likely
    sizes: tuple[FrameShare, FrameShare]  # bounds of a product's height over the frame's, drawn log-uniformly

    def __post_init__(self) -> None:
        if self.sizes[0] > self.sizes[1]:
            raise ValueError(f"encode.collages.sizes is {list(self.sizes)}: give the smaller one first")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingSpec:
    """How many views, captions and masks of each pin are encoded, and which."""

    sources: Annotated[tuple[str, ...], MinLen(1)]  # of captions, by preference; a+b: both as one longer caption
    views: Count  # of each pin of the train split: the first as it is, the others cropped at random
    crops: CropSpec  # of those others; the frame keeps its size
    collages: CollageSpec | None  # those others of scenes, with products of other pins on them; null: none
    captions: Count  # of each pin, its first ones; fewer are repeated
    holes: Literal["cells", "pixels"]  # what masks hide: a number a latent cell (kind unet), or all its pixels (dit)
    random_masks: Count  # of each pin
    masks: HoleSpec  # what the random ones are
    product_masks: Count  # of each pin; of a scene they are empty
    photographs: Share  # of the views after the first with a product, whose masks keep a photograph to be extended
    mask_errors: MaskErrors  # of the product masks
    features: FeatureSpec | None  # null: none are kept
    batch_size: Count  # images at once
    precision: Precision  # of the encoders; the shards are float16
    rows_per_shard: Count  # views in a file
    parallel: Literal["none", "ddp"]  # ddp: ranks share the shards
    seed: Natural  # of crops and masks


@dataclass(frozen=True, kw_only=True, slots=True)
class EngagementRule:
    """Promoted product pins with enough impressions, the best of them by engagement."""

    min_impressions: Count  # below, a rate says little
    share: Annotated[float, Gt(0), Le(1)]  # of those pins, highest rate first, that are taken, of every split
    saves_weight: NonNegative  # rate = (saves_weight * saves + clicks) / impressions


def estimate_encoding_memory(encode: EncodingSpec, pins: int) -> Iterator[tuple[str, int, str]]:
    """Yield what `encode` holds: the captions of all sources, whatever encode.captions says; collages take the
    generated ones once more."""
    count = len(encode.sources) + (encode.collages is not None and encode.views > 1)
    yield "", pins * count * CAPTION_BYTES, f"{pins:,} x {count} captions x {CAPTION_BYTES} bytes, measured"


def estimate_index_memory(encode: EncodingSpec, pins: int) -> Iterator[tuple[str, int, str]]:
    """Yield what each training of a denoiser holds: the index of the shards."""
    size = pins * encode.views * INDEX_ROW_BYTES
    yield "index", size, f"{pins:,} x {encode.views} views x {INDEX_ROW_BYTES} bytes, measured"
