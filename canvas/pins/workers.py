"""Models over tables of pins: each worker of the data engine holds one, and predicts columns from images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from PIL import Image

from canvas.pins.images import decode_image

if TYPE_CHECKING:
    import daft

Predictor = Callable[[Sequence[Image.Image]], Sequence[dict[str, Any]]]
"""A model that predicts a row of columns from each image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """How the work of a model over a table is shared out."""

    count: int | None  # processes that each hold the model; None: the engine's own, in its threads
    threads: int  # of each model
    batch_size: int  # images at once


def predict_columns(
    pins: daft.DataFrame,
    load_predictor: Callable[[], Predictor],
    schema: pa.Schema,
    workers: Workers,
    *,
    keep: Sequence[str] = ("pin_id",),
) -> daft.DataFrame:
    """Return the columns `keep` of a frame of pins, and those of `schema` that a model predicts from its `image`.

    Lazy, in the frame's order on the native runner. Images that cannot be decoded are the filter's to drop: they raise.

    Args:
        pins: The frame.
        load_predictor: Is called once by each worker.
        schema: Columns that the model predicts, and `keep`.
        workers: Processes or threads, and how many images go through the model at once.
        keep: Columns that come back as they are.
    """

    def load() -> Callable[[Sequence[bytes]], Sequence[dict[str, Any]]]:
        import torch

        torch.set_num_threads(workers.threads)
        predict = load_predictor()
        return lambda images: predict([decode_image(data) for data in images])

    return compute_columns(pins, load, ("image",), schema, workers.batch_size, workers.count, keep=keep)


def compute_columns(
    pins: daft.DataFrame,
    load: Callable[[], Callable[..., Iterable[dict[str, Any]]]],
    reads: Sequence[str],
    schema: pa.Schema,
    batch_size: int,
    workers: int | None = None,
    *,
    keep: Sequence[str] = ("pin_id",),
) -> daft.DataFrame:
    """Return columns of a frame, and those that a function computes from it; lazy.

    Args:
        pins: The frame.
        load: Is called once by each worker; it returns the function, which is called with a list of values a column.
        reads: Columns that the function is given.
        schema: Columns that it computes, and `keep`.
        batch_size: Rows at once.
        workers: How many; None: the engine's threads.
        keep: Columns that come back as they are.
    """
    import daft

    fields = {field.name: daft.DataType.from_arrow_type(field.type) for field in schema if field.name not in keep}

    @daft.cls(max_concurrency=workers, use_process=False)
    class Worker:
        def __init__(self) -> None:
            from canvas.loading import LOADING_LOCK  # the engine pickles this class, and a lock cannot be

            with LOADING_LOCK:
                self.compute = load()

        @daft.method.batch(  # type: ignore[untyped-decorator]
            return_dtype=daft.DataType.struct(fields), unnest=True, batch_size=batch_size
        )
        def compute_rows(self, *columns: daft.Series) -> list[dict[str, Any]]:
            return list(self.compute(*(column.to_pylist() for column in columns)))

    return pins.select(*keep, Worker().compute_rows(*(pins[name] for name in reads)))
