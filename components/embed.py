"""Stage `embed`: one row a kept pin, what it looks like to UVE and to CLIP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.ranges import Count
from components.artifacts import Clip, Embeddings, Kept, Pins, Uve
from lifecycle.declare.stage import Input, Metrics, Output, stage

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedParams:
    batch_size: Count  # images at once
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
    start_engine(engine)
    clock = time.perf_counter()
    total = len(tables.read_kept_splits(pins.path, kept.path))
    rows = _embedded(embed, engine, pins.path, kept.path, uve.path, clip.path, total)
    written = tables.write(embeddings.path, rows, tables.EMBEDDINGS)
    seconds = time.perf_counter() - clock
    if not written:
        raise ValueError(f"{kept.path} keeps no pin: there is nothing to embed")
    first = next(tables.read_batches(embeddings.path, rows=1)).to_pylist()[0]
    figures = {
        "pins": written,
        "uve_width": len(first["uve"]),
        "clip_width": len(first["clip"]),
        "bytes_a_pin": 4 * len(first["uve"]) + len(first["uve_code"]) + 4 * len(first["clip"]),
        "seconds": seconds,
        "pins_per_second": written / seconds,
    }
    metrics.write(figures)


def _embedded(
    params: EmbedParams, engine: Engine, pins: Path, kept: Path, uve: Path, clip: Path, total: int
) -> Iterator[pa.RecordBatch]:
    from tqdm import tqdm

    from canvas.uve.table import embed_table

    good = tables.scan(kept).where("kept").select("pin_id")
    frame = embed_table(
        tables.scan(pins).select("pin_id", "image").join(good, on="pin_id", how="semi"),
        uve,
        clip,
        batch_size=params.batch_size,
        workers=params.workers,
        threads=engine.threads,
    )
    with tqdm(total=total, desc="embed", unit="pin") as bar:
        for batch in frame.to_arrow_iter(results_buffer_size=1):
            yield batch
            bar.update(batch.num_rows)
