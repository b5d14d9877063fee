"""A chain of filters over a table of pins: each asks only the pins that the ones before it left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from canvas.filters.scoring import score_pins
from canvas.pins import tables


@dataclass(frozen=True, slots=True)
class FilterPass:
    """What one filter was asked, and how long it took from its first pin to its last, loading its model included."""

    pins: int
    seconds: float


@dataclass
class FilterChain:
    """Every pin's scores and the first reason against it; 200 bytes a pin are held in memory, never a picture."""

    pins: Path
    scores: pd.DataFrame = field(init=False)
    """A row a pin in the order of the table, indexed by pin_id; a score that was not asked is missing."""
    passes: dict[str, FilterPass] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    """Filter -> pins left after it, in order."""

    def __post_init__(self) -> None:
        ids = [name for batch in tables.read_batches(self.pins, ["pin_id"], rows=4096) for name in batch[0].to_pylist()]
        index = pd.Index(ids, name="pin_id", dtype=object)
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

    def ask(self, name: str, scorer: type[Any], *arguments: object, only: pd.Index | None = None) -> pd.DataFrame:
        """One pass of `scorer` over the survivors (or those of them in `only`): its columns by pin_id.

        Columns of tables.KEPT are noted in `scores`. Every picture is decoded once a pass and never written.
        """
        from tqdm import tqdm

        asked = self.survivors.index if only is None else only
        started, batches = time.perf_counter(), []
        with tqdm(total=len(asked), desc=f"filter: {name}", unit="pin") as bar:
            for batch in self._answers(asked, scorer, *arguments):
                batches.append(batch.to_pandas())
                bar.update(batch.num_rows)
        self.passes[name] = FilterPass(len(asked), time.perf_counter() - started)
        found = pd.concat(batches).set_index("pin_id") if batches else pd.DataFrame(columns=scorer.scores.names)
        noted = [column for column in found.columns if column in self.scores.columns]
        for column in noted:
            self.scores.loc[found.index, column] = found[column].astype(self.scores[column].dtype)
        return found.reindex(asked)

    def drop(self, reason: str, against: pd.Series) -> None:
        """Note `reason` for the survivors that `against` (bool by pin_id; missing is False) is true of."""
        hit = against.reindex(self.scores.index, fill_value=False).astype(bool) & self.scores["reason"].isna()
        self.scores.loc[hit, "reason"] = reason

    def close(self, name: str) -> None:
        """Count what filter `name` has left. Raises `ValueError` if that is nothing."""
        self.left[name] = len(self.survivors)
        if not self.left[name]:
            reasons = self.scores["reason"].value_counts().to_dict()
            raise ValueError(f"the filter left no pin of {len(self.scores)}: {reasons}; loosen its limits")

    def table(self) -> pa.Table:
        """The rows of tables.KEPT."""
        rows = self.scores.reset_index().assign(kept=self.scores["reason"].isna().to_numpy())
        columns = [pa.Array.from_pandas(rows[column.name]).cast(column.type) for column in tables.KEPT]
        return pa.table(columns, schema=tables.KEPT)

    def _answers(self, asked: pd.Index, scorer: type[Any], *arguments: object) -> Any:
        if not len(asked):
            return
        import daft

        pins = tables.scan(self.pins).select("pin_id", *scorer.reads)
        if len(asked) < len(self.scores):
            wanted = daft.from_arrow(pa.table({"pin_id": pa.array(asked.to_numpy(), pa.string())}))
            pins = pins.join(wanted, on="pin_id", how="semi")
        yield from score_pins(pins, scorer, *arguments).to_arrow_iter(results_buffer_size=1)
