"""What of a pin goes into the training shards: params of stages, so this module is light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from canvas.masks.errors import MaskErrors
from canvas.masks.holes import HoleSpec
from canvas.pins.frames import CropSpec
from canvas.train.spec import Precision

CAPTION_BYTES = 900
"""Bytes of a caption as held while captions are read (canvas.pins.captions.read_captions): measured of a process,
750 for captions of 60 letters and 1,160 for 200."""

INDEX_ROW_BYTES = 630
"""Bytes of a row of shards while their index is made (canvas.shards.rows.ShardRows), measured; 310 of them stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingSpec:
    """How many views, captions and masks of each pin are encoded, and which."""

    sources: tuple[str, ...]  # of captions, in order of preference
    views: int  # of each pin of the train split: the first as it is, the others cropped at random
    crops: CropSpec  # of those others; the frame keeps its size
    captions: int  # of each pin, its first ones; fewer are repeated
    random_masks: int  # of each pin
    masks: HoleSpec  # what the random ones are
    product_masks: int
    mask_errors: MaskErrors  # of the product masks
    batch_size: int  # pictures at once
    precision: Precision  # of the encoders; the shards are float16
    rows_per_shard: int  # views in a file
    parallel: Literal["none", "ddp"]  # ddp: ranks share the shards
    seed: int

    def __post_init__(self) -> None:
        for name in ("views", "captions", "random_masks", "product_masks", "batch_size", "rows_per_shard"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"encode.{name} is {value}: it must be 1 or more")
        if not self.sources:
            raise ValueError("encode.sources is []: name at least one source of captions, such as generated")


def estimate_encoding_memory(encode: EncodingSpec, pins: int) -> Iterator[tuple[str, int, str]]:
    """Yield what `encode` holds: the captions of all sources, whatever encode.captions says."""
    count = len(encode.sources)
    yield "", pins * count * CAPTION_BYTES, f"{pins:,} x {count} captions x {CAPTION_BYTES} bytes, measured"


def estimate_index_memory(encode: EncodingSpec, pins: int) -> Iterator[tuple[str, int, str]]:
    """Yield what each training of a denoiser holds: the index of the shards."""
    size = pins * encode.views * INDEX_ROW_BYTES
    yield "index", size, f"{pins:,} x {encode.views} views x {INDEX_ROW_BYTES} bytes, measured"
