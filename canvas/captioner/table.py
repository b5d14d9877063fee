"""The captioner over a table of pins: as a column of a Daft frame, and in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from PIL import Image

from canvas.captioner.model import Captioner, load_captioner
from canvas.device import default_device
from canvas.pins import tables
from canvas.pins.captions import iterate_texts
from canvas.pins.images import decode_image, draw_contact_sheet
from canvas.pins.workers import Predictor, Workers, predict_columns

if TYPE_CHECKING:
    import daft

OWNER_COLUMNS = ("pin_id", "title", "description", "alt_text")


def caption_pins(pins: daft.DataFrame, captioner: Path, workers: Workers) -> daft.DataFrame:
    """Return OWNER_COLUMNS, `generated` captions ("": unusable) and whether they were asked for again (`asked_again`).

    Of a frame that has OWNER_COLUMNS and `image`; lazy, in its order.
    """

    def load_predictor() -> Predictor:
        model = load_captioner(captioner)
        model.model.to(default_device())
        return lambda images: [
            {"generated": answer.caption, "asked_again": answer.asked_again} for answer in model.answer(images)
        ]

    schema = pa.schema([("generated", pa.string()), ("asked_again", pa.bool_())])
    return predict_columns(pins, load_predictor, schema, workers, keep=OWNER_COLUMNS)


def stream_captions(frame: daft.DataFrame, total: int, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Evaluate the frame that `caption_pins` makes of `total` pins: rows of tables.CAPTIONS, a source each.

    `counts` grows by the pins that were asked for again, and by those whose answers were unusable.
    """
    for batch in tables.stream_batches(frame, total, "caption"):
        pins = batch.to_pylist()
        counts["asked_again"] += sum(pin["asked_again"] for pin in pins)
        counts["unusable"] += sum(not pin["generated"] for pin in pins)
        rows = [
            {"pin_id": pin["pin_id"], "source": source, "caption": text}
            for pin in pins
            for source, text in iterate_texts(pin)
        ]
        yield pa.RecordBatch.from_pylist(rows, tables.CAPTIONS)


def caption_images(captioner: Captioner, pins: Path, pin_ids: Collection[str], batch_size: int) -> dict[str, str]:
    """Generate a caption of each of the given pins: pin_id -> caption, in the order of the table."""
    captions: dict[str, str] = {}
    for rows in tables.select_batches(pins, ["image"], pin_ids, batch_size):
        texts = captioner.generate_captions([decode_image(row["image"]) for row in rows])
        captions |= zip((row["pin_id"] for row in rows), texts, strict=True)
    return captions


def draw_caption_sheet(pins: Path, generated: Mapping[str, str], count: int) -> Image.Image:
    """Draw `count` pins, spread over the table, each above its generated caption."""
    ids = sorted(generated)
    chosen = ids[:: max(1, len(ids) // count)][:count]
    image_of = tables.read_column(pins, "image", chosen)
    images = [decode_image(image_of[pin_id]) for pin_id in chosen]
    return draw_contact_sheet(images, [generated[pin_id] for pin_id in chosen], columns=6, cell=260)
