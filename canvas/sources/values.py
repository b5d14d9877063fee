"""Values of a list as the text that its owner wrote: nothing is guessed from how a text looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

INVISIBLE = "\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
"""Characters without width that spreadsheets and web pages leave round a copied text."""
MAX_DIGITS = 40  # of a number that is written out: 1e999999 stays as it is


@dataclass(slots=True)
class Row:
    """A row of a list, under our names of columns; one with a fault is no pin."""

    values: Mapping[str, str | None]  # None: the list says nothing
    image: bytes | None = None  # the file itself, where the list holds it
    fault: str | None = None  # in one sentence


@dataclass(frozen=True, slots=True)
class NoNumber:
    """NaN or an infinity, which JSON does not know."""

    token: str


@dataclass(frozen=True, slots=True)
class NoTime:
    """A date or time that no calendar has."""


def format_value(value: object) -> str | None:
    """Return a value as text: a text as it is, whole numbers without a point; None where there is none.

    Raises:
        ValueError: "is ..." for what is neither text nor number: NaN, a list, an object, bytes that are not UTF-8.
    """
    match value:
        case None:
            return None
        case str():
            return _check_text(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"is {format(value).replace('nan', 'NaN')}: write a number, or leave it empty")
            return str(int(value)) if value.is_integer() else repr(value)
        case Decimal():
            return format_number(str(value))
        case NoNumber():
            raise ValueError(f"is {value.token}, which JSON does not know: write a number or null")
        case NoTime():
            raise ValueError("is a time beyond any calendar: write it as text, or leave it empty")
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise ValueError(f"is {len(value)} bytes that are not UTF-8: write text") from None
        case _:
            name = type(value).__name__
            kind = {"list": "a list", "dict": "an object"}.get(name, f"a {name}")
            raise ValueError(f"is {kind}: write one text or number")


def trim(text: str) -> str:
    """Return the text without spaces round it, those that have no width among them."""
    while (trimmed := text.strip().strip(INVISIBLE)) != text:
        text = trimmed
    return text


def format_number(token: str) -> str:
    """Return a number as it was written, a whole one without a point: 4006381333931.0 is 4006381333931."""
    try:
        number = Decimal(token)
    except InvalidOperation:
        return token
    if number.is_finite() and number.adjusted() < MAX_DIGITS and number == number.to_integral_value():
        return str(int(number))
    return token


def _check_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character, {text[error.start]!a}: write the whole one") from None
    return text
