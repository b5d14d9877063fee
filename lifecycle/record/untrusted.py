"""Text that came with a catalogue, on its way to a terminal or to a page of MLflow: it shows, and does nothing."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"[\\`*\[\]<>!|~]")


def strip_controls(text: str) -> str:
    """Return `text` with every character that a terminal would obey, line ends and tabs apart, as U+FFFD."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def print_plain(text: str) -> None:
    """Print what may hold texts of a catalogue."""
    print(strip_controls(text))


def escape_markdown(text: str) -> str:
    """Return `text` as one line that Markdown shows as it is: no image or link of its own, no HTML, no emphasis."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
