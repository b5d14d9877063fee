"""Stage `encode`: every kept pin once through the frozen encoders, into shards that the denoiser trains on."""

from __future__ import annotations

import time

from canvas.clip.spec import TextSpec
from canvas.pins.frames import FrameSpec
from canvas.shards.spec import EncodingSpec, estimate_encoding_memory
from components.artifacts import Captions, Clip, Kept, Masks, Pins, Shards, TextEncoders, Vae
from lifecycle.declare.stage import Input, Metrics, Output, Scratch, stage


@stage(machine="gpus", memory=estimate_encoding_memory)
def encode(
    encode: EncodingSpec,
    text: TextSpec,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    masks: Input[Masks],
    captions: Input[Captions],
    clip: Input[Clip],
    towers: Input[TextEncoders],
    vae: Input[Vae],
    shards: Output[Shards],
    metrics: Output[Metrics],
    scratch: Scratch,
) -> None:
    """Encode every kept pin: latents, text states, masked latents, image embeddings."""
    from canvas.denoiser.dit.spec import PATCH
    from canvas.pins import tables
    from canvas.pins.captions import read_captions
    from canvas.pins.fallbacks import Notes, choose_sources
    from canvas.shards.collages import Collages
    from canvas.shards.encoding import Encoders, PinSamples, compute_encoding_metrics
    from canvas.shards.files import write_shards
    from canvas.train.distributed import join_world
    from canvas.vae.model import get_scale_factor

    clock = time.perf_counter()
    encoders = Encoders.load(clip.path, towers.path, vae.path, text)
    frames.check_cells(get_scale_factor(encoders.vae) * (PATCH if encode.holes == "pixels" else 1))
    split_of = tables.read_kept_splits(pins.path, kept.path)
    notes = Notes()
    captions_of = read_captions(captions.path, split_of, choose_sources(captions.path, split_of, encode.sources, notes))
    ids = [pin_id for pin_id in split_of if pin_id in captions_of]
    views = [(pin_id, view) for pin_id in ids for view in range(encode.views if split_of[pin_id] == "train" else 1)]
    collages = None
    if encode.collages is not None and encode.views > 1:
        train = {pin_id for pin_id in ids if split_of[pin_id] == "train"}
        collages = Collages.read(encode.collages, encode.seed, pins.path, masks.path, captions.path, train)
    with join_world(encode.parallel) as world:
        samples = PinSamples(
            pins.path, masks.path, views, captions_of, encoders, encode, frames, world.rank > 0, collages
        )
        started = time.perf_counter()
        rows, work = encode.rows_per_shard, scratch.path / "shards"
        encoded = write_shards(shards.path, len(views), samples, work=work, rows_per_shard=rows, world=world)
        seconds = time.perf_counter() - started
    if world.rank > 0:
        return

    texts = {caption for pin_id in ids for caption in captions_of[pin_id][: encode.captions]}
    values: dict[str, object] = {"pins": len(ids), "views": len(views), "without_caption": len(split_of) - len(ids)}
    speed = {
        "images_per_second": encoded / seconds,  # of this call: a killed one left its shards
        "seconds": {"load": started - clock, "encode": seconds},
    }
    values |= notes.to_metrics()
    metrics.write(values | compute_encoding_metrics(shards.path, texts, encoders.towers, pins=len(ids)) | speed)
