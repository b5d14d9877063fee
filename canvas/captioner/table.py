"""The captioner over a table of pins, as a column of a Daft frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import daft


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
            from canvas.pins.images import decode_image

            return self.captioner.captions([decode_image(data) for data in images.to_pylist()])

    column_of: Any = Writer().captions_of  # Daft makes an expression of it
    generated = column_of(pins["image"]).alias("generated")
    return pins.select("pin_id", "title", "description", "alt_text", generated)
