"""Workers of the data engine load their models one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import daft
import pyarrow as pa

from canvas.pins.engine import Engine, start_engine
from canvas.pins.workers import compute_columns

ROWS = 4000


BUILDERS: list[int] = []
"""The threads that build a model now."""


@contextmanager
def building() -> Iterator[None]:
    """What holds while a library builds a model: a switch of the whole process."""
    BUILDERS.append(threading.get_ident())
    assert len(BUILDERS) == 1, "two models are built at once"
    time.sleep(0.2)
    yield
    BUILDERS.pop()


def load() -> Callable[[list[int]], Iterable[dict[str, Any]]]:
    with building():
        return lambda numbers: [{"double": 2 * number} for number in numbers]


def test_no_two_models_are_built_at_once() -> None:
    start_engine(Engine(runner="native", ray_address=None, threads=2))
    frame = daft.from_pydict({"pin_id": [str(row) for row in range(ROWS)], "number": list(range(ROWS))})
    schema = pa.schema([("pin_id", pa.string()), ("double", pa.int64())])
    rows = compute_columns(frame, load, ("number",), schema, batch_size=8)
    assert rows.to_pydict()["double"] == [2 * row for row in range(ROWS)]
