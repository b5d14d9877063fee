"""Groups of embedded pins that may be styles: clusters of images that look alike, and boards."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.image_batches import select_evenly
from canvas.styles.clusters import compute_descriptors
from canvas.uve.pin_embeddings import concatenate_embeddings
from canvas.uve.spec import EmbeddingSource


@dataclass(frozen=True, slots=True)
class EmbeddedPins:
    """Pins that styles are mined from, row by row."""

    pins: list[str]
    uve: Vectors
    clip: Vectors
    descriptors: Vectors  # what clusters and coherence are of
    boards: list[str | None]
    splits: list[str]
    captions: list[str]  # backgrounds; "": unknown

    def select_rows(self, splits: Collection[str]) -> NDArray[np.int64]:
        """Return the rows of the pins of `splits`."""
        return np.array([row for row, split in enumerate(self.splits) if split in splits], np.int64)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may be a style, nearest to their mean first."""

    name: str
    rows: NDArray[np.int64]


def read_embedded_pins(
    embeddings: Path,
    pins: Path,
    captions: Path,
    *,
    splits: Collection[str],
    count: int,
    source: EmbeddingSource,
    without_product: bool,
) -> EmbeddedPins:
    """Read at most `count` embedded pins of `splits` and as many of the others, spread evenly.

    Args:
        source: Embeddings that the descriptors are made of.
        without_product: Take out of the descriptors what all pins of a product share.

    Raises:
        ValueError: No embedded pin is of `splits`.
    """
    row_of = {row["pin_id"]: row for row in tables.read(pins, ["pin_id", "board", "product_id", "split"]).to_pylist()}
    embedded = tables.read(embeddings, ["pin_id"])["pin_id"].to_pylist()
    mined = select_evenly([pin for pin in embedded if row_of[pin]["split"] in splits], count)
    if not mined:
        raise ValueError(f"no embedded pin is of {', '.join(splits)}: name other mine_styles.splits")
    others = select_evenly([pin for pin in embedded if row_of[pin]["split"] not in splits], count)
    selected = pa.array([*mined, *others], pa.string())
    ids: list[str] = []
    parts: dict[str, list[Vectors]] = {"uve": [], "clip": []}
    for batch in tables.read_batches(embeddings, ["pin_id", *parts], 2_000):
        rows = batch.filter(pc.is_in(batch["pin_id"], selected))
        if rows.num_rows:
            ids += rows["pin_id"].to_pylist()
            for name, part in parts.items():
                part.append(rows[name].flatten().to_numpy().reshape(rows.num_rows, -1))
    vectors = {name: np.concatenate(parts.pop(name)) for name in ("uve", "clip")}  # one of them is there twice at most
    joint = normalize_vectors(concatenate_embeddings(vectors, source))
    contents = [row_of[pin]["product_id"] if without_product else None for pin in ids]
    background_of = read_backgrounds(captions, set(ids))
    return EmbeddedPins(
        ids,
        vectors["uve"],
        vectors["clip"],
        compute_descriptors(joint, contents),
        [row_of[pin]["board"] or None for pin in ids],
        [row_of[pin]["split"] for pin in ids],
        [background_of.get(pin, "") for pin in ids],
    )


def group_by_cluster(pins: EmbeddedPins, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> list[Group]:
    """Return the clusters of `rows`, largest first; `labels` are the clusters' numbers, and places are their names."""
    clusters = [rows[labels == number] for number in np.unique(labels)]
    clusters.sort(key=lambda members: (-len(members), int(members[0])))
    return [Group(str(place), _sort_by_similarity(pins.descriptors, rows)) for place, rows in enumerate(clusters)]


def group_by_board(pins: EmbeddedPins, rows: NDArray[np.int64]) -> list[Group]:
    """Return the pins of `rows` by board, boards by name."""
    boards: dict[str, list[int]] = {}
    for row in rows.tolist():
        if (board := pins.boards[row]) is not None:
            boards.setdefault(board, []).append(row)
    return [Group(name, _sort_by_similarity(pins.descriptors, np.array(boards[name]))) for name in sorted(boards)]


def _sort_by_similarity(descriptors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort rows by their similarity to their mean, the most similar first."""
    cosines = descriptors[rows] @ descriptors[rows].mean(axis=0)
    return np.asarray(rows[np.argsort(-cosines, kind="stable")])
