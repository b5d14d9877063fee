"""Styles from groups of embedded pins: named by their captions' words, measured, dropped with a reason if none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors
from canvas.styles.clusters import CoherenceTest, compare_coherences, compute_coherence
from canvas.styles.mining import EmbeddedPins, Group
from canvas.styles.spec import StyleLimits
from canvas.styles.table import Style

MAX_CAPTIONS = 1000
"""Captions of a group that are searched for its name, at most."""

MAX_WORDS = 4
"""Words of a name, at most."""


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


def name_groups(groups: Sequence[Sequence[str]]) -> list[str | None]:
    """Return for each group of captions the phrase that most of them hold and other groups don't; None: no words.

    The phrase with the largest share * log(share / mean share of all groups), its part of the groups' information
    about each other; the longest of equal ones. Neither end is a word of grammar alone.
    """
    shares = [_compute_shares(group) for group in groups]
    totals: Counter[str] = Counter()
    for phrases in shares:
        totals.update(phrases)  # shares are added up
    return [_choose_phrase(phrases, totals, len(groups)) for phrases in shares]


def has_phrase(caption: str, phrase: str) -> bool:
    """Return whether the caption holds the words of `phrase` in a row."""
    return f" {phrase} " in f" {' '.join(_split_words(caption))} "


def number_repeats(names: Sequence[str]) -> list[str]:
    """Return the names, later ones that repeat an earlier one numbered: forest, forest 2."""
    counts: Counter[str] = Counter()
    numbered = []
    for name in names:
        counts[name] += 1
        numbered.append(name if counts[name] == 1 else f"{name} {counts[name]}")
    return numbered


def _compute_shares(captions: Sequence[str]) -> dict[str, float]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    sample = captions[:: max(1, len(captions) // MAX_CAPTIONS)]
    counts: Counter[str] = Counter()
    for caption in sample:
        words = _split_words(caption)
        counts.update(
            {
                " ".join(words[start : start + length])
                for length in range(1, MAX_WORDS + 1)
                for start in range(len(words) - length + 1)
                if not {words[start], words[start + length - 1]} & ENGLISH_STOP_WORDS
            }
        )
    return {phrase: count / len(sample) for phrase, count in counts.items()}


def _choose_phrase(shares: dict[str, float], totals: Counter[str], groups: int) -> str | None:
    def rank(phrase: str) -> tuple[float, float, int, str]:
        share = shares[phrase]
        information = share * math.log(share * groups / totals[phrase])
        return round(information, 3), round(share, 3), len(phrase), phrase

    return max(shares, key=rank, default=None)


def _split_words(caption: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", caption.lower())
