"""Cells of a list that are counts or flags, by the text that stands there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from canvas.sources.values import format_number

MAX_COUNT_DIGITS = 19  # so that 64 bits hold it
THOUSANDS = re.compile(r"\d{1,3}\.000")
"""Text that is one, or a thousand where people write it so."""
TRUE_WORDS, FALSE_WORDS = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n", "")
MAX_QUOTED = 40  # characters of a cell in a reason


def parse_count(name: str, text: str | None) -> int | None:
    """Parse a count; None where the list says nothing."""
    if text is None or not (number := text.strip()):
        return None
    if THOUSANDS.fullmatch(number):
        less, more = number[:-4], number.replace(".", "")
        raise ValueError(f"{name} is {number!r}: write {more} or {less}, as a point may part thousands")
    number = format_number(number)  # 2.0 is 2
    if not (number.isascii() and number.isdigit() and len(number) < MAX_COUNT_DIGITS):
        raise ValueError(f"{name} is {text[:MAX_QUOTED]!r}: a count is a whole number from 0")
    return int(number)


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Raise `ValueError` where more people acted than saw; a count that the list lacks is no reason."""
    for name in ("saves", "clicks"):
        acted, saw = counts[name], counts["impressions"]
        if acted is not None and saw is not None and acted > saw:
            raise ValueError(f"{name} are {acted} of {saw} impressions: there cannot be more than those")


def parse_flag(text: str | None) -> bool:
    """Parse a flag; absent means false."""
    word = format_number((text or "").strip().lower())  # 1.0 is 1
    if word not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError(f"promoted is {word[:MAX_QUOTED]!r}: write true or false")
    return word in TRUE_WORDS
