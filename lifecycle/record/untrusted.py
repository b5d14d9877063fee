"""Text that came with a catalogue, on its way to a terminal or to a page of MLflow: it shows, and does nothing."""

from __future__ import annotations

import re
import unicodedata
from typing import TextIO

_KEPT = "\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"
_MARKUP = re.compile(r"[\\`*\[\]<>!|~]")


def strip_controls(text: str) -> str:
    """Return `text` with every character that a terminal would obey, line ends and tabs apart, as U+FFFD. Spaces of
    all kinds and joiners, which Persian, Hindi and emoji need, stay; what turns the direction of writing does not."""
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == "Zs"


def print_plain(text: str, file: TextIO | None = None) -> None:
    """Print what may hold texts of a catalogue, or what a server or another tool says; to stdout, or to `file`."""
    print(strip_controls(text), file=file)


def escape_markdown(text: str) -> str:
    """Return `text` as one line that Markdown shows as it is: no image or link of its own, no HTML, no emphasis."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
