"""The embeddings of pins as the image-prompt adapter reads them: which of them, in which order, of unit length each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from canvas.data import tables
from canvas.data.clusters import unit

Source = Literal["uve", "clip", "uve+clip"]
"""Which embeddings stand side by side."""

Vectors = NDArray[np.float32]  # [N, E]


def joined(parts: Mapping[str, Vectors], source: str) -> Vectors:
    """Embeddings [N, E] of `source` from "uve" and "clip" [N, ...] each. Raises ValueError for another source."""
    if unknown := set(source.split("+")) - {"uve", "clip"}:
        raise ValueError(f"the image embedding {source!r} is unknown ({', '.join(unknown)}): use uve, clip or uve+clip")
    return np.concatenate([parts[name] for name in source.split("+")], axis=1)


def averaged(parts: Mapping[str, Vectors], weights: Sequence[float]) -> dict[str, Vectors]:
    """The weighted mean of each part [N, ...] as one [1, ...] of unit length, as the parts' rows are."""
    shares = np.asarray(weights, np.float32)[None]
    return {name: unit(shares @ part) for name, part in parts.items()}


class PinEmbeddings:
    """Embeddings of all pins of tables.EMBEDDINGS, in memory: 4 bytes a number."""

    def __init__(self, path: Path, source: str) -> None:
        ids: list[str] = []
        found = []
        names = source.split("+")
        for batch in tables.batches(path, ["pin_id", *names], rows=4096):
            ids += batch.column("pin_id").to_pylist()
            parts = {name: np.stack(batch.column(name).to_numpy(zero_copy_only=False)) for name in names}
            found.append(joined(parts, source))
        if not ids:
            raise ValueError(f"{path} holds no embedding: run the stage embed on pins that the filter keeps")
        self.vectors: Vectors = np.concatenate(found).astype(np.float32)
        self._row = {pin: row for row, pin in enumerate(ids)}

    @property
    def width(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def of(self, pins: Sequence[str]) -> Vectors:
        """[N, E], in the order of `pins`. Raises ValueError for a pin that was not embedded."""
        if missing := [pin for pin in pins if pin not in self._row]:
            raise ValueError(
                f"{len(missing)} pins have no embedding ({missing[0]}, ...): embed and encode the same pins"
            )
        return self.vectors[[self._row[pin] for pin in pins]]
