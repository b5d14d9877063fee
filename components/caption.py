"""Stage `caption`: every text of a kept pin, its owner's and ours, each with its source."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.ranges import Count
from components.artifacts import Captioner, Captions, Kept, Pins, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionParams:
    batch_size: Count  # images at once
    workers: Count | None  # processes that each hold the captioner; null: the engine's own, in its threads
    sheet_pins: Count  # on the sheet


@stage(machine="gpu")
def caption(
    caption: CaptionParams,
    engine: Engine,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    captioner: Input[Captioner],
    captions: Output[Captions],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Write a caption of every kept pin beside its title, description and alt text.

    The sheet shows pins with their generated captions.
    """
    from canvas.captioner.captions import load_captioned_pins
    from canvas.captioner.table import caption_pins, draw_caption_sheet, stream_captions
    from canvas.pins.images import encode_png
    from canvas.pins.workers import Workers
    from evaluation.measures.captions import compute_caption_metrics, compute_mean_words, score_captions

    start_engine(engine)
    clock = time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    images = tables.scan_kept(pins.path, kept.path, ["pin_id", "image", "title", "description", "alt_text"])
    workers = Workers(count=caption.workers, threads=engine.threads, batch_size=caption.batch_size)
    frame = caption_pins(images, captioner.path, workers)
    counts = Counter({"asked_again": 0, "unusable": 0})
    rows = tables.write(captions.path, stream_captions(frame, len(split_of), counts), tables.CAPTIONS)
    seconds = time.perf_counter() - clock

    texts = tables.read(captions.path).to_pylist()
    generated = {row["pin_id"]: row["caption"] for row in texts if row["source"] == "generated"}
    captioned = load_captioned_pins(pins.path, truth.path, split_of)
    values: dict[str, object] = {
        "rows": rows,
        "by_source": dict(Counter(row["source"] for row in texts)),
        "words_by_source": compute_mean_words(texts),
        "different_generated": len(set(generated.values())),
        **counts,
        "seconds": seconds,
        "pins_per_second": len(split_of) / seconds,
    }
    # The train split is scored, too: its figures say how much is learnt by heart.
    values |= compute_caption_metrics(score_captions({pin: generated.get(pin, "") for pin in captioned}, captioned))
    metrics.write(values)
    sheet.write(encode_png(draw_caption_sheet(pins.path, generated, caption.sheet_pins)))
