"""Stage `encode`: every kept pin once through the frozen encoders, into shards that the denoiser trains on."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.clip.spec import TextSpec
from canvas.pins.frames import FrameSpec
from canvas.shards.spec import EncodingSpec
from components.artifacts import Captions, Clip, Kept, Masks, Pins, Shards, Vae
from lifecycle.declare.stage import Input, Metrics, Output, Scratch, stage

if TYPE_CHECKING:
    from canvas.shards.encoding import Encoders

MAX_CHECKED_CAPTIONS = 20_000
"""Captions that are asked whether a text tower cuts them off."""


@stage(machine="gpus")
def encode(
    encode: EncodingSpec,
    text: TextSpec,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    masks: Input[Masks],
    captions: Input[Captions],
    clip: Input[Clip],
    vae: Input[Vae],
    shards: Output[Shards],
    metrics: Output[Metrics],
    scratch: Scratch,
) -> None:
    """Encode every kept pin: latents, text states, masked latents, image embeddings."""
    from canvas.pins import tables
    from canvas.pins.captions import read_captions
    from canvas.pins.image_batches import select_evenly
    from canvas.shards.encoding import PinSamples
    from canvas.shards.files import write_shards
    from canvas.shards.rows import ShardRows
    from canvas.train.distributed import join_world
    from canvas.vae.model import get_scale_factor

    clock = time.perf_counter()
    encoders = _encoders(clip.path, vae.path, text)
    frames.check_cells(get_scale_factor(encoders.vae))
    split_of = tables.read_kept_splits(pins.path, kept.path)
    said = read_captions(captions.path, split_of, encode.sources)
    ids = [pin_id for pin_id in split_of if pin_id in said]
    views = [(pin_id, view) for pin_id in ids for view in range(encode.views if split_of[pin_id] == "train" else 1)]
    with join_world(encode.parallel) as world:
        samples = PinSamples(pins.path, masks.path, views, said, encoders, encode, frames, silent=world.rank > 0)
        started = time.perf_counter()
        encoded = write_shards(
            shards.path,
            len(views),
            samples,
            work=scratch.path / "shards",
            rows_per_shard=encode.rows_per_shard,
            world=world,
        )
        seconds = time.perf_counter() - started
    if world.rank > 0:
        return

    index = ShardRows(shards.path).index
    texts = {caption for pin_id in ids for caption in said[pin_id][: encode.captions]}
    looked_at = select_evenly(texts, MAX_CHECKED_CAPTIONS)
    figures = {
        "pins": len(ids),
        "views": len(views),
        "without_caption": len(split_of) - len(ids),
        "by_split": dict(Counter(row.split for row in index if row.view == 0)),
        "by_bucket": dict(Counter(row.bucket for row in index if row.view == 0)),
        "by_kind": dict(Counter(row.kind for row in index if row.view == 0)),
        "captions": len(texts),
        "captions_cut_share": sum(any(tower.get_overflow(text) for tower in encoders.towers) for text in looked_at)
        / len(looked_at),
        "bytes_per_pin": sum(file.stat().st_size for file in shards.path.iterdir()) / len(ids),
        "images_per_second": encoded / seconds,  # of this call: a killed one left its shards
        "seconds": {"load": started - clock, "encode": seconds},
    }
    metrics.write(figures)


def _encoders(clip: Path, vae: Path, text: TextSpec) -> Encoders:
    from canvas.clip.model import TextTower, load_clip
    from canvas.device import default_device
    from canvas.shards.encoding import Encoders
    from canvas.vae.model import load_vae

    device = default_device()
    first, second = (load_clip(clip / name).eval().to(device) for name in ("first", "second"))
    towers = TextTower.from_clip(first, text.first).to(device), TextTower.from_clip(second, text.second).to(device)
    return Encoders(load_vae(vae).eval().to(device), (first, second), towers)
