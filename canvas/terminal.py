"""Text that came with a catalogue, on its way to a terminal."""

from __future__ import annotations


def strip_controls(text: str) -> str:
    """Return `text` with every character that a terminal would obey, line ends and tabs apart, as U+FFFD."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
