"""Names of groups of images, from the words of their captions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

MAX_CAPTIONS = 1000
"""Captions of a group that are searched for its name, at most."""

MAX_WORDS = 4
"""Words of a name, at most."""


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
    """Return phrase -> share of the captions that hold it."""
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
