"""Rows of the table of styles, from groups of embedded pins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors
from canvas.styles.coherence import CoherenceTest, compare_coherences, compute_coherence
from canvas.styles.limits import StyleLimits
from canvas.styles.mining import EmbeddedPins, Group
from canvas.styles.names import has_phrase, name_groups, number_repeats


def build_cluster_rows(groups: Sequence[Group], pins: EmbeddedPins, limits: StyleLimits) -> list[dict[str, Any]]:
    """Return the rows of clusters, named by what their captions share."""
    phrases = _name_by_captions(groups, pins)
    names = number_repeats([phrase or f"cluster {place}" for place, phrase in enumerate(phrases)])
    rows = [
        _build_row(f"cluster-{place:03d}", "cluster", name, phrase, group, pins)
        for place, (group, phrase, name) in enumerate(zip(groups, phrases, names, strict=True))
    ]
    return [row | {"dropped": limits.find_cluster_fault(row)} for row in rows]


def compare_boards(
    groups: Sequence[Group], pins: EmbeddedPins, rows: NDArray[np.int64], limits: StyleLimits, seed: int
) -> dict[str, CoherenceTest]:
    """Compare the coherence of every board of enough pins with that of pins of `rows` at random."""
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    large = [group for group in groups if not limits.find_size_fault(len(group.rows))]
    members = {group.name: [place_of[int(row)] for row in group.rows] for group in large}
    return compare_coherences(pins.descriptors[rows], members, seed)


def build_board_rows(
    groups: Sequence[Group],
    pins: EmbeddedPins,
    limits: StyleLimits,
    tests: Mapping[str, CoherenceTest],
    significant: Sequence[bool],
) -> list[dict[str, Any]]:
    """Return the rows of boards; `tests` of those that are large enough, and in their order whether each stands."""
    stands = dict(zip(tests, significant, strict=True))
    rows = []
    for place, (group, phrase) in enumerate(zip(groups, _name_by_captions(groups, pins), strict=True)):
        row = _build_row(f"board-{place:04d}", "board", group.name, phrase, group, pins)
        if (test := tests.get(group.name)) is None:
            row["dropped"] = limits.find_size_fault(len(group.rows))
        else:
            row |= {"chance": test.p_value, "dropped": limits.find_board_fault(test, stands[group.name])}
        rows.append(row)
    return rows


def _name_by_captions(groups: Sequence[Group], pins: EmbeddedPins) -> list[str | None]:
    return name_groups([[pins.captions[row] for row in group.rows] for group in groups])


def _build_row(
    style_id: str, kind: str, name: str, phrase: str | None, group: Group, pins: EmbeddedPins
) -> dict[str, Any]:
    captions = [pins.captions[row] for row in group.rows if pins.captions[row]]
    return {
        "style_id": style_id,
        "kind": kind,
        "name": name,
        "uve": normalize_vectors(pins.uve[group.rows].mean(axis=0)).tolist(),
        "clip": normalize_vectors(pins.clip[group.rows].mean(axis=0)).tolist(),
        "pins": [pins.pins[row] for row in group.rows],
        "purity": sum(has_phrase(caption, phrase) for caption in captions) / len(captions)
        if captions and phrase
        else None,
        "coherence": compute_coherence(pins.descriptors[group.rows]),
        "chance": None,
    }
