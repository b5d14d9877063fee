"""Text that came with a catalogue, on its way to a terminal."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"


def strip_controls(text: str) -> str:
    """Return `text` with every character that a terminal would obey, line ends and tabs apart, as U+FFFD. Spaces of
    all kinds and joiners, which Persian, Hindi and emoji need, stay; what turns the direction of writing does not."""
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == "Zs"
