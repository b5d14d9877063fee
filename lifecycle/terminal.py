"""What commands print: texts that came with a catalogue do nothing to a terminal, and a reader may leave.

`canvas/terminal.py` says the same: neither package may know the other. A test holds the two alike.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_KEPT = "\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"


def strip_controls(text: str) -> str:
    """Return `text` with every character that a terminal would obey, line ends and tabs apart, as U+FFFD. Spaces of
    all kinds and joiners, which Persian, Hindi and emoji need, stay; what turns the direction of writing does not."""
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == "Zs"


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Print to a reader who may leave, as `| head` does: that ends the block, and is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python itself flushes once more


def print_plain(text: str, file: TextIO | None = None) -> None:
    """Print what may hold texts of a catalogue, or what a server or another tool says; to stdout, or to `file`."""
    print(strip_controls(text), file=file)
