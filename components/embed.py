"""Stage `embed`: one row a kept pin, what it looks like to UVE and to CLIP."""

from __future__ import annotations

import time
from dataclasses import dataclass

from canvas.pins.engine import Engine
from canvas.ranges import Count
from canvas.train.spec import Precision
from components.artifacts import Clip, Embeddings, Kept, Pins, Uve
from lifecycle.declare.stage import Input, Metrics, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedParams:
    batch_size: Count  # images at once
    precision: Precision  # of both networks; vectors are float32
    workers: Count | None  # processes that each hold the models; null: the engine's own, in its threads


@stage(machine="gpu")
def embed(
    embed: EmbedParams,
    engine: Engine,
    pins: Input[Pins],
    kept: Input[Kept],
    uve: Input[Uve],
    clip: Input[Clip],
    embeddings: Output[Embeddings],
    metrics: Output[Metrics],
) -> None:
    """Embed every kept pin with UVE, as floats and as binary code, and with CLIP's second image tower."""
    from canvas.pins import tables
    from canvas.pins.engine import start_engine
    from canvas.pins.workers import Workers
    from canvas.uve.table import embed_kept_pins

    start_engine(engine)
    clock = time.perf_counter()
    workers = Workers(count=embed.workers, threads=engine.threads, batch_size=embed.batch_size)
    rows = embed_kept_pins(pins.path, kept.path, uve.path, clip.path, workers, embed.precision)
    written = tables.write(embeddings.path, rows, tables.EMBEDDINGS)
    seconds = time.perf_counter() - clock
    if not written:
        raise ValueError(f"{kept.path} keeps no pin: there is nothing to embed")
    first = next(tables.read_batches(embeddings.path, rows=1)).to_pylist()[0]
    results = {
        "pins": written,
        "uve_width": len(first["uve"]),
        "clip_width": len(first["clip"]),
        "bytes_a_pin": 4 * len(first["uve"]) + len(first["uve_code"]) + 4 * len(first["clip"]),
        "seconds": seconds,
        "pins_per_second": written / seconds,
    }
    metrics.write(results)
