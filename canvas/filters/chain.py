"""A chain of filters over a table of pins: each scores only the pins that the ones before it left."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.workers import compute_columns

BATCH_SIZE = 16
"""Pins a call of a scorer: 16 images of a megapixel are 50 MB."""


class Scorer(ABC):
    """Computes the columns `scores` from the columns `reads`, a mapping a row; each worker of the engine holds one.

    A model call takes one thread: `engine.threads` workers that run one each are faster than one that uses all
    (no waiting at the end of a layer, and decoding goes on meanwhile).
    """

    reads: tuple[str, ...]
    scores: pa.Schema

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    @abstractmethod
    def __call__(self, *columns: Any, **_: Any) -> Iterable[dict[str, Any]]:
        """Compute rows of `scores` from lists of the columns."""


@dataclass(frozen=True, slots=True)
class FilterPass:
    """How many pins a scorer scored, and the seconds from its first to its last, loading its model included."""

    pins: int
    seconds: float


@dataclass
class FilterChain:
    """Every pin's scores and the first reason against it; 200 bytes a pin are held in memory, never an image."""

    pins: Path
    scores: pd.DataFrame = field(init=False)
    """A row a pin in the order of the table, indexed by pin_id; a score that was not computed is missing."""
    passes: dict[str, FilterPass] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """Filter -> pins left after it, in order."""

    def __post_init__(self) -> None:
        index = pd.Index(tables.read(self.pins, ["pin_id"])["pin_id"].to_pylist(), name="pin_id", dtype=object)
        columns = {
            column.name: pd.Series(index=index, dtype=object if column.type == pa.string() else np.float64)
            for column in tables.KEPT
            if column.name not in ("pin_id", "kept")
        }
        self.scores = pd.DataFrame(columns)

    @property
    def survivors(self) -> pd.DataFrame:
        """The scores of the pins with no reason against them."""
        return self.scores[self.scores["reason"].isna()]

    def score(self, name: str, scorer: type[Scorer], *arguments: object, only: pd.Index | None = None) -> pd.DataFrame:
        """Score the survivors (or those of them in `only`) in one pass: the scorer's columns by pin_id. Columns of
        tables.KEPT are noted in `scores`. Every image is decoded once a pass and never written."""
        pin_ids = self.survivors.index if only is None else only
        started, batches = time.perf_counter(), []
        with tqdm(total=len(pin_ids), desc=f"filter: {name}", unit="pin") as bar:
            for batch in self._stream_scores(pin_ids, scorer, *arguments):
                batches.append(batch.to_pandas())
                bar.update(batch.num_rows)
        self.passes[name] = FilterPass(len(pin_ids), time.perf_counter() - started)
        scores = pd.concat(batches).set_index("pin_id") if batches else pd.DataFrame(columns=scorer.scores.names)
        for column in scores.columns.intersection(self.scores.columns):
            self.scores.loc[scores.index, column] = scores[column].astype(self.scores[column].dtype)
        return scores.reindex(pin_ids)

    def drop(self, reason: str, against: pd.Series[Any]) -> None:
        """Note `reason` for the survivors that `against` (bool by pin_id; missing is False) is true of."""
        hit = against.reindex(self.scores.index, fill_value=False).astype(bool) & self.scores["reason"].isna()
        self.scores.loc[hit, "reason"] = reason

    def close(self, name: str) -> None:
        """Count what filter `name` has left. Raises `ValueError` if that is nothing."""
        self.left[name] = len(self.survivors)
        if not self.left[name]:
            reasons = self.scores["reason"].value_counts().to_dict()
            raise ValueError(f"the filter left no pin of {len(self.scores)}: {reasons}; loosen its limits")

    def build_table(self) -> pa.Table:
        """Build the rows of tables.KEPT."""
        rows = self.scores.reset_index().assign(kept=self.scores["reason"].isna().to_numpy())
        columns = [pa.Array.from_pandas(rows[column.name]).cast(column.type) for column in tables.KEPT]
        return pa.table(columns, schema=tables.KEPT)

    def _stream_scores(self, pin_ids: pd.Index, scorer: type[Scorer], *arguments: object) -> Iterator[pa.RecordBatch]:
        if not len(pin_ids):
            return
        import daft

        pins = tables.scan(self.pins).select("pin_id", *scorer.reads)
        if len(pin_ids) < len(self.scores):
            selected = daft.from_arrow(pa.table({"pin_id": pa.array(pin_ids.to_numpy(), pa.string())}))
            pins = pins.join(selected, on="pin_id", how="semi")
        scores = compute_columns(pins, partial(scorer, *arguments), scorer.reads, scorer.scores, BATCH_SIZE)
        yield from scores.to_arrow_iter(results_buffer_size=1)
