"""Scores of pins as columns of a Daft frame: a scorer is a class that holds its model and is asked in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    import daft
    import onnxruntime

BATCH_SIZE = 16
"""Pins a call: 16 pictures of a megapixel are 50 MB."""


class Scorer(Protocol):
    """Gives the columns `scores` for the columns `reads`, a mapping a row; called from several threads at once.

    A model call takes one thread: `engine.threads` workers that run one each are faster than one that uses all
    (no waiting at the end of a layer, and decoding goes on meanwhile).
    """

    reads: tuple[str, ...]
    scores: pa.Schema

    def __call__(self, *columns: Sequence[Any]) -> Iterable[dict[str, Any]]: ...


def score_pins(pins: daft.DataFrame, scorer: type[Any], *arguments: object) -> daft.DataFrame:
    """Columns `pin_id` and the scorer's, in no particular order; lazy.

    Each process that works on it builds `scorer(*arguments)` once. An exception of the scorer ends the run.
    """
    import daft

    fields = {field.name: daft.DataType.from_arrow_type(field.type) for field in scorer.scores}

    @daft.cls(use_process=False, name_override=scorer.__name__)
    class Worker:
        def __init__(self) -> None:
            self.scorer = scorer(*arguments)

        @daft.method.batch(return_dtype=daft.DataType.struct(fields), unnest=True, batch_size=BATCH_SIZE)
        def rows(self, *columns: daft.Series) -> list[dict[str, Any]]:
            return list(self.scorer(*(column.to_pylist() for column in columns)))

    return pins.select("pin_id", Worker().rows(*(pins[name] for name in scorer.reads)))


def load_onnx_session(model: Path) -> onnxruntime.InferenceSession:
    """A session whose calls run in the calling thread, so that as many run as there are workers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
