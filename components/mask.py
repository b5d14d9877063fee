"""Stage `mask`: one row a kept pin, its product's mask and matte."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.pins.masks import MaskLimits
from canvas.ranges import Count
from canvas.segmenter.spec import EdgeSpec
from components.artifacts import Kept, Masks, Pins, Segmenter, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from evaluation.measures.masks import MaskScore


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskParams:
    limits: MaskLimits
    batch_size: Count  # images at once
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
    from canvas.pins.images import encode_png
    from evaluation.measures.masks import compute_mask_metrics

    start_engine(engine)
    clock = time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    rows = _segment_pins(mask, edges, engine, pins.path, kept.path, segmenter.path, len(split_of))
    written = tables.write(masks.path, rows, tables.MASKS)
    seconds = time.perf_counter() - clock

    verdicts = {row["pin_id"]: row for row in tables.read(masks.path, ["pin_id", "confidence", "rejected"]).to_pylist()}
    scores = {score.pin_id: score for score in _score_masks(masks.path, truth.path, split_of)}
    figures: dict[str, object] = {"pins": written, "seconds": seconds, "pins_per_second": written / seconds}
    figures["rejected"] = dict(Counter(row["rejected"] for row in verdicts.values() if row["rejected"]))
    figures |= compute_mask_metrics(scores.values())
    figures |= _compute_screening_metrics(verdicts, scores)
    metrics.write(figures)
    sheet.write(encode_png(_draw_sheet(mask.sheet_each, pins.path, masks.path, verdicts, scores)))


def _segment_pins(
    params: MaskParams, edges: EdgeSpec, engine: Engine, pins: Path, kept: Path, segmenter: Path, total: int
) -> Iterator[pa.RecordBatch]:
    from tqdm import tqdm

    from canvas.segmenter.table import segment_pins

    good = tables.scan(kept).where("kept").select("pin_id")
    frame = segment_pins(
        tables.scan(pins).select("pin_id", "image").join(good, on="pin_id", how="semi"),
        segmenter,
        params.limits,
        edges,
        batch_size=params.batch_size,
        workers=params.workers,
        threads=engine.threads,
    )
    with tqdm(total=total, desc="mask", unit="pin") as bar:
        for batch in frame.to_arrow_iter(results_buffer_size=1):
            yield batch
            bar.update(batch.num_rows)


def _score_masks(masks: Path, truth: Path, split_of: Mapping[str, str]) -> Iterator[MaskScore]:
    """In the order of pin_id; nothing for pins that truth does not know."""
    import numpy as np

    from canvas.pins.masks import decode_mask
    from evaluation.measures.masks import score_mask

    known = tables.scan(truth).select("pin_id", "alpha").with_column_renamed("alpha", "truth")
    pairs = tables.scan(masks).select("pin_id", "mask").join(known, on="pin_id").sort("pin_id")
    for batch in pairs.to_arrow_iter(results_buffer_size=1):
        for row in batch.to_pylist():
            found = decode_mask(row["mask"])
            true = np.zeros(found.shape, bool) if row["truth"] is None else decode_mask(row["truth"])
            yield score_mask(row["pin_id"], split_of[row["pin_id"]], found, true)


def _compute_screening_metrics(
    verdicts: Mapping[str, Mapping[str, object]], scores: Mapping[str, MaskScore]
) -> dict[str, float]:
    """What the rejections are worth: IoU of pins with a product that were accepted, and that were rejected."""
    from evaluation.statistics.intervals import bootstrap_mean

    products = [score for score in scores.values() if score.has_product]
    accepted = [score.iou for score in products if verdicts[score.pin_id]["rejected"] is None]
    refused = [score.iou for score in products if verdicts[score.pin_id]["rejected"] is not None]
    return {
        **(bootstrap_mean(accepted).to_metrics("iou_of_accepted") if accepted else {}),
        **(bootstrap_mean(refused).to_metrics("iou_of_rejected") if refused else {}),
    }


def _draw_sheet(
    each: int,
    pins: Path,
    masks: Path,
    verdicts: Mapping[str, Mapping[str, object]],
    scores: Mapping[str, MaskScore],
) -> Image.Image:
    """The best and the worst masks drawn into their pins, by IoU where truth is known, else by confidence."""
    from canvas.masks.drawing import draw_outline
    from canvas.pins.images import decode_image, draw_contact_sheet
    from canvas.pins.masks import decode_mask

    def worth(pin_id: str) -> float:
        score = scores.get(pin_id)
        return float(str(verdicts[pin_id]["confidence"])) if score is None else score.iou

    def label(pin_id: str) -> str:
        measure = "IoU" if pin_id in scores else "confidence"
        return f"{measure} {worth(pin_id):.3f} {verdicts[pin_id]['rejected'] or ''}"

    ranked = sorted(verdicts, key=lambda pin_id: (-worth(pin_id), pin_id))
    best = [pin_id for pin_id in ranked if verdicts[pin_id]["rejected"] != "empty"][:each]
    shown = [*best, *(pin_id for pin_id in ranked[-each:] if pin_id not in best)]
    rows = _read_column(pins, "image", shown), _read_column(masks, "mask", shown)
    pictures = [draw_outline(decode_image(rows[0][pin_id]), decode_mask(rows[1][pin_id])) for pin_id in shown]
    return draw_contact_sheet(pictures, [label(pin_id) for pin_id in shown], columns=8, cell=150)


def _read_column(table: Path, column: str, wanted: Sequence[str]) -> dict[str, bytes]:
    """One column of a few pins."""
    import daft

    found = tables.scan(table).where(daft.col("pin_id").is_in(list(wanted))).select("pin_id", column).to_pydict()
    return dict(zip(found["pin_id"], found[column], strict=True))
