"""Styles of a table of embeddings: clusters of pictures that look alike, and boards, each with what is known of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.image_batches import select_evenly
from canvas.styles.clusters import compute_descriptors


@dataclass(frozen=True, slots=True)
class EmbeddedPins:
    """The pins that styles are mined from, row by row."""

    pins: list[str]
    uve: Vectors
    clip: Vectors
    descriptors: Vectors  # descriptors: what clusters and coherence are of
    boards: list[str | None]
    splits: list[str]
    captions: list[str]  # backgrounds; "": unknown


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may be a style, the most typical first."""

    name: str
    rows: NDArray[np.int64]


def read_embedded_pins(
    embeddings: Path,
    pins: Path,
    captions: Path,
    *,
    splits: Collection[str],
    count: int,
    source: str,
    without_product: bool,
) -> EmbeddedPins:
    """Pins of the embeddings, at most `count` of `splits` and as many of the others, spread evenly. `source` of the
    descriptors: "uve", "clip" or "uve+clip"; `without_product`: what all pins of a product share is taken out of them.

    Raises `ValueError` if `splits` have none.
    """
    known = {row["pin_id"]: row for row in tables.read(pins, ["pin_id", "board", "product_id", "split"]).to_pylist()}
    every = tables.read(embeddings, ["pin_id"])["pin_id"].to_pylist()
    mined = select_evenly([pin for pin in every if known[pin]["split"] in splits], count)
    if not mined:
        raise ValueError(f"no embedded pin is of {', '.join(splits)}: name other mine_styles.splits")
    wanted = {*mined, *select_evenly([pin for pin in every if known[pin]["split"] not in splits], count)}
    parts: dict[str, list[Any]] = {"pin_id": [], "uve": [], "clip": []}
    for batch in tables.read_batches(embeddings, list(parts), 2_000):
        chosen = batch.filter(pa.array([pin in wanted for pin in batch["pin_id"].to_pylist()]))
        if chosen.num_rows:
            parts["pin_id"] += chosen["pin_id"].to_pylist()
            for name in ("uve", "clip"):
                parts[name].append(chosen[name].flatten().to_numpy().reshape(chosen.num_rows, -1))
    ids = parts["pin_id"]
    vectors = {name: np.concatenate(parts.pop(name)) for name in ("uve", "clip")}  # one of them is there twice at most
    shown = normalize_vectors(np.concatenate([vectors[name] for name in source.split("+")], axis=1))
    contents = [known[pin]["product_id"] if without_product else None for pin in ids]
    words = read_backgrounds(captions, set(ids))
    return EmbeddedPins(
        ids,
        vectors["uve"],
        vectors["clip"],
        compute_descriptors(shown, contents),
        [known[pin]["board"] or None for pin in ids],
        [known[pin]["split"] for pin in ids],
        [words.get(pin, "") for pin in ids],
    )


def group_by_cluster(descriptors: Vectors, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> list[Group]:
    """The clusters of `rows`, largest first; their names are still numbers. `labels`: cluster of each of `rows`."""
    members = [rows[labels == number] for number in np.unique(labels)]
    members.sort(key=lambda found: (-len(found), int(found[0])))
    return [Group(str(place), _sort_by_typicality(descriptors, found)) for place, found in enumerate(members)]


def group_by_board(descriptors: Vectors, rows: NDArray[np.int64], boards: Sequence[str | None]) -> list[Group]:
    """The pins of `rows` by board, boards by name."""
    members: dict[str, list[int]] = {}
    for row in rows.tolist():
        if (board := boards[row]) is not None:
            members.setdefault(board, []).append(row)
    return [Group(name, _sort_by_typicality(descriptors, np.array(members[name]))) for name in sorted(members)]


def _sort_by_typicality(descriptors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    cosines = descriptors[rows] @ descriptors[rows].mean(axis=0)
    return np.asarray(rows[np.argsort(-cosines, kind="stable")])
