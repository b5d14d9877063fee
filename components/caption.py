"""Stage `caption`: every text of a kept pin, its owner's and ours, each with its source."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.ranges import Count
from components.artifacts import Captioner, Captions, Kept, Pins, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from evaluation.measures.captions import CaptionScore


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionParams:
    batch_size: Count  # images at once
    workers: Count | None  # processes that each hold the captioner; null: the engine's own, in its threads
    sheet_pins: Count


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
    from canvas.pins.images import encode_png
    from evaluation.measures.captions import compute_caption_metrics

    start_engine(engine)
    clock = time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    rows = tables.write(
        captions.path,
        _caption_pins(caption, engine, pins.path, kept.path, captioner.path, len(split_of)),
        tables.CAPTIONS,
    )
    seconds = time.perf_counter() - clock

    texts = tables.read(captions.path).to_pylist()
    generated = {row["pin_id"]: row["caption"] for row in texts if row["source"] == "generated"}
    figures: dict[str, object] = {
        "rows": rows,
        "by_source": dict(Counter(row["source"] for row in texts)),
        "words_by_source": _count_mean_words(texts),
        "different_generated": len(set(generated.values())),
        "seconds": seconds,
        "pins_per_second": len(split_of) / seconds,
    }
    figures |= compute_caption_metrics(_score_captions(generated, pins.path, truth.path, split_of))
    metrics.write(figures)
    sheet.write(encode_png(_draw_sheet(caption.sheet_pins, pins.path, generated)))


def _caption_pins(
    params: CaptionParams, engine: Engine, pins: Path, kept: Path, captioner: Path, total: int
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from tqdm import tqdm

    from canvas.captioner.table import caption_pins
    from canvas.pins.captions import iterate_texts

    good = tables.scan(kept).where("kept").select("pin_id")
    frame = caption_pins(
        tables.scan(pins).join(good, on="pin_id", how="semi"),
        captioner,
        batch_size=params.batch_size,
        workers=params.workers,
        threads=engine.threads,
    )
    with tqdm(total=total, desc="caption", unit="pin") as bar:
        for batch in frame.to_arrow_iter(results_buffer_size=1):
            rows = [
                {"pin_id": pin["pin_id"], "source": source, "caption": text}
                for pin in batch.to_pylist()
                for source, text in iterate_texts(pin)
            ]
            yield pa.RecordBatch.from_pylist(rows, tables.CAPTIONS)
            bar.update(batch.num_rows)


def _count_mean_words(texts: list[dict[str, str]]) -> dict[str, float]:
    words: dict[str, list[int]] = {}
    for row in texts:
        words.setdefault(row["source"], []).append(len(row["caption"].split()))
    return {source: sum(counts) / len(counts) for source, counts in words.items()}


def _score_captions(
    generated: Mapping[str, str], pins: Path, truth: Path, split_of: Mapping[str, str]
) -> list[CaptionScore]:
    """Of the pins that truth knows; the train split is among them, its figures say how much is learnt by heart."""
    from canvas.captioner.captions import load_captioned_pins
    from canvas.pins.captions import parse_caption
    from evaluation.measures.captions import learn_category_nouns, score_caption

    words = load_captioned_pins(pins, truth, split_of)
    nouns = learn_category_nouns(
        (parse_caption(pin.caption)[0], pin.category) for pin in words.values() if pin.split == "train"
    )
    return [
        score_caption(
            pin_id,
            pin.split,
            generated.get(pin_id, ""),
            pin.caption,
            pin.scene,
            pin.category,
            parse=parse_caption,
            nouns=nouns,
        )
        for pin_id, pin in words.items()
        if pin.true
    ]


def _draw_sheet(count: int, pins: Path, generated: Mapping[str, str]) -> Image.Image:
    """Pins spread evenly over the table, each above its caption."""
    import daft

    from canvas.pins.images import decode_image, draw_contact_sheet

    ids = sorted(generated)
    shown = ids[:: max(1, len(ids) // count)][:count]
    found = tables.scan(pins).where(daft.col("pin_id").is_in(shown)).select("pin_id", "image").to_pydict()
    images = dict(zip(found["pin_id"], found["image"], strict=True))
    pictures = [decode_image(images[pin_id]) for pin_id in shown]
    return draw_contact_sheet(pictures, [generated[pin_id] for pin_id in shown], columns=6, cell=260)
