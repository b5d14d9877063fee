"""Stage `mask`: one row a kept pin, its product's mask and matte."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.pins.masks import MaskLimits
from canvas.ranges import Count
from canvas.segmenter.spec import EdgeSpec
from canvas.train.spec import Precision
from components.artifacts import Kept, Masks, Pins, Segmenter, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskParams:
    limits: MaskLimits
    batch_size: Count  # images at once
    precision: Precision  # of the segmenter; mattes are float32
    workers: Count | None  # processes that each hold the segmenter; null: the engine's own, in its threads
    sheet_each: Count  # pins on each half of the sheet: best and worst


@stage(machine="gpu")
def mask(
    mask: MaskParams,
    edges: EdgeSpec,
    engine: Engine,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    segmenter: Input[Segmenter],
    masks: Output[Masks],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Segment every kept pin; score the masks where the truth is known.

    The sheet shows the best and the worst masks.
    """
    from canvas.masks.drawing import draw_mask_sheet
    from canvas.pins.images import encode_png
    from canvas.pins.workers import Workers
    from canvas.segmenter.table import segment_pins
    from evaluation.measures.masks import compute_mask_metrics, compute_screening_metrics, score_mask_table

    start_engine(engine)
    clock = time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    images = tables.scan_kept(pins.path, kept.path, ["pin_id", "image"])
    workers = Workers(count=mask.workers, threads=engine.threads, batch_size=mask.batch_size)
    frame = segment_pins(images, segmenter.path, mask.limits, edges, workers, mask.precision)
    rows = tables.write(masks.path, tables.stream_batches(frame, len(split_of), "mask"), tables.MASKS)
    seconds = time.perf_counter() - clock

    reasons = {row["pin_id"]: row["rejected"] for row in tables.read(masks.path, ["pin_id", "rejected"]).to_pylist()}
    scores = list(score_mask_table(masks.path, truth.path, split_of))
    values: dict[str, object] = {"pins": rows, "seconds": seconds, "pins_per_second": rows / seconds}
    values["rejected"] = dict(Counter(filter(None, reasons.values())))
    values |= compute_mask_metrics(scores)
    values |= compute_screening_metrics(scores, reasons)
    metrics.write(values)
    iou_of = {score.pin_id: score.iou for score in scores}
    sheet.write(encode_png(draw_mask_sheet(pins.path, masks.path, iou_of, mask.sheet_each)))
