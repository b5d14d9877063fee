"""The captioner over a table of pins: as a column of a Daft frame, and in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from canvas.pins import tables
from canvas.pins.captions import iterate_texts
from canvas.pins.images import decode_image, draw_contact_sheet

if TYPE_CHECKING:
    import daft
    from PIL import Image

    from canvas.captioner.model import Captioner


def caption_pins(
    pins: daft.DataFrame, captioner: Path, *, batch_size: int, workers: int | None, threads: int
) -> daft.DataFrame:
    """`pin_id`, `title`, `description`, `alt_text` and `generated` for the frame's pins (which have `image` besides),
    in its order on the native runner. Lazy; each of `workers` processes (None: the
    engine's own) loads the captioner once."""
    import daft

    @daft.cls(max_concurrency=workers, use_process=False)
    class Writer:
        def __init__(self) -> None:
            import torch

            from canvas.captioner.model import load_captioner
            from canvas.device import default_device

            torch.set_num_threads(threads)
            self.captioner = load_captioner(captioner)
            self.captioner.model.to(default_device())

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=batch_size)
        def captions_of(self, images: daft.Series) -> list[str]:
            return self.captioner.generate_captions([decode_image(data) for data in images.to_pylist()])

    column_of: Any = Writer().captions_of  # Daft makes an expression of it
    generated = column_of(pins["image"]).alias("generated")
    return pins.select("pin_id", "title", "description", "alt_text", generated)


def stream_captions(frame: daft.DataFrame, total: int) -> Iterator[pa.RecordBatch]:
    """Evaluate the frame that `caption_pins` makes of `total` pins: rows of tables.CAPTIONS, a source each."""
    for batch in tables.stream_batches(frame, total, "caption"):
        rows = [
            {"pin_id": pin["pin_id"], "source": source, "caption": text}
            for pin in batch.to_pylist()
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
