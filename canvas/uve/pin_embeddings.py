"""Embeddings of pins as the image-prompt adapter reads them: which of them, in which order, of unit length each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.pins import tables

CACHED_ROW_GROUPS = 512
"""Row groups of embeddings, of 250 pins and some megabytes each: more than the shards hold that the buckets mix at a
time."""


def concatenate_embeddings(parts: Mapping[str, Vectors], source: str) -> Vectors:
    """Return embeddings [N, E] of `source` from "uve" and "clip" [N, ...]; ValueError for another source."""
    if unknown := set(source.split("+")) - {"uve", "clip"}:
        raise ValueError(f"the image embedding {source!r} is unknown ({', '.join(unknown)}): use uve, clip or uve+clip")
    return np.concatenate([parts[name] for name in source.split("+")], axis=1)


def average_embeddings(parts: Mapping[str, Vectors], weights: Sequence[float]) -> dict[str, Vectors]:
    """Return the weighted mean of each part [N, ...] as one [1, ...] of unit length, as the parts' rows are."""
    shares = np.asarray(weights, np.float32)[None]
    return {name: normalize_vectors(shares @ part) for name, part in parts.items()}


class PinEmbeddings:
    """Embeddings of the pins of tables.EMBEDDINGS, read when they are asked for; some row groups stay in memory, for
    shards hold pins in the order of the table."""

    def __init__(self, path: Path, source: str) -> None:
        self._rows = tables.RowsById(path, remembered=CACHED_ROW_GROUPS)
        self._source = source
        first = next(iter(self._rows), None)
        if first is None:
            raise ValueError(f"{path} holds no embedding: run the stage embed on pins that the filter keeps")
        self.width = self.read([first]).shape[1]  # E

    def read(self, pins: Sequence[str]) -> Vectors:
        """Return [N, E], in the order of `pins`; ValueError for a pin that was not embedded."""
        if missing := [pin for pin in pins if pin not in self._rows]:
            raise ValueError(
                f"{len(missing)} pins have no embedding ({missing[0]}, ...): embed and encode the same pins"
            )
        names = self._source.split("+")
        row_of = {row["pin_id"]: row for row in self._rows.read(pins, ["pin_id", *names])}
        parts = {name: np.array([row_of[pin][name] for pin in pins], np.float32) for name in names}
        return concatenate_embeddings(parts, self._source)
