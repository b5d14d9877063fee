"""Styles from groups of embedded pins: named, measured, and dropped with a reason where they are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors
from canvas.styles.coherence import CoherenceTest, compare_coherences, compute_coherence
from canvas.styles.mining import EmbeddedPins, Group
from canvas.styles.names import has_phrase, name_groups, number_repeats
from canvas.styles.spec import StyleLimits
from canvas.styles.table import Style


def build_cluster_styles(groups: Sequence[Group], pins: EmbeddedPins, limits: StyleLimits) -> list[Style]:
    """Return the styles of clusters, named by what their captions share."""
    phrases = _name_by_captions(groups, pins)
    names = number_repeats([phrase or f"cluster {place}" for place, phrase in enumerate(phrases)])
    styles = [
        _build_style(f"cluster-{place:03d}", "cluster", name, phrase, group, pins)
        for place, (group, phrase, name) in enumerate(zip(groups, phrases, names, strict=True))
    ]
    return [replace(style, dropped=limits.find_cluster_fault(style)) for style in styles]


def compare_boards(
    groups: Sequence[Group], pins: EmbeddedPins, rows: NDArray[np.int64], limits: StyleLimits, seed: int
) -> dict[str, CoherenceTest]:
    """Compare the coherence of every board of enough pins with that of pins of `rows` at random."""
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    members = {
        group.name: [place_of[row] for row in group.rows.tolist()]
        for group in groups
        if not limits.find_size_fault(len(group.rows))
    }
    return compare_coherences(pins.descriptors[rows], members, seed)


def build_board_styles(
    groups: Sequence[Group],
    pins: EmbeddedPins,
    limits: StyleLimits,
    tests: Mapping[str, CoherenceTest],
    significant: Sequence[bool],
) -> list[Style]:
    """Return the styles of boards; `tests` of those that are large enough, and in their order their significance."""
    is_significant = dict(zip(tests, significant, strict=True))
    styles = []
    for place, (group, phrase) in enumerate(zip(groups, _name_by_captions(groups, pins), strict=True)):
        style = _build_style(f"board-{place:04d}", "board", group.name, phrase, group, pins)
        if (test := tests.get(group.name)) is None:
            style = replace(style, dropped=limits.find_size_fault(len(group.rows)))
        else:
            fault = limits.find_board_fault(test, is_significant[group.name])
            style = replace(style, chance=test.p_value, dropped=fault)
        styles.append(style)
    return styles


def _name_by_captions(groups: Sequence[Group], pins: EmbeddedPins) -> list[str | None]:
    return name_groups([[pins.captions[row] for row in group.rows] for group in groups])


def _build_style(style_id: str, kind: str, name: str, phrase: str | None, group: Group, pins: EmbeddedPins) -> Style:
    captions = [pins.captions[row] for row in group.rows if pins.captions[row]]
    purity = None
    if captions and phrase:
        purity = sum(has_phrase(caption, phrase) for caption in captions) / len(captions)
    return Style(
        style_id=style_id,
        kind=kind,
        name=name,
        uve=normalize_vectors(pins.uve[group.rows].mean(axis=0)),
        clip=normalize_vectors(pins.clip[group.rows].mean(axis=0)),
        pins=tuple(pins.pins[row] for row in group.rows),
        purity=purity,
        coherence=compute_coherence(pins.descriptors[group.rows]),
        chance=None,
        dropped=None,
    )
