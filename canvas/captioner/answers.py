"""What public captioners answer, brought to the form of a caption: "product, background"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from canvas.pins.captions import format_caption

REMINDER = (
    "Answer again in one line and in this form: the product, one comma, the background. No other comma, nothing else. "
    'Where there is no product, write "none" before the comma.'
)
"""What a chat model is told whose first answer has not the form."""

NO_PRODUCT = ("none", "no product", "nothing", "no")
MAX_PRODUCT_WORDS = 12  # a longer "product" is a sentence about the image

_PLACE = re.compile(r"\s+(?=(?:on|in|at|against|before|behind|beside|by|inside|near|over|under|outside)\s+\w)", re.I)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one image's answers."""

    caption: str  # "": none of them could be used
    asked_again: bool = False


def parse_answer(text: str) -> str | None:
    """Return the caption that an answer in the form holds; None: it has another form.

    The form is one line with one comma and words on both sides; "none" before it says that there is no product.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    product, *backgrounds = (part.strip(" \t\"'`*.") for part in "".join(lines[:1]).split(","))
    if len(lines) != 1 or len(backgrounds) != 1 or len(product.split()) > MAX_PRODUCT_WORDS:
        return None
    if not all(any(letter.isalpha() for letter in part) for part in (product, backgrounds[0])):
        return None
    return format_caption(None if product.lower() in NO_PRODUCT else product, backgrounds[0])


def parse_sentence(text: str) -> str | None:
    """Return the caption that a description as "a mug on a table" holds, parted where the place begins, or None."""
    product, *places = _PLACE.split(" ".join(text.replace(",", " ").split()).strip(" ."), maxsplit=1)
    return parse_answer(f"{product}, {places[0]}") if places else None


def remove_prompt(text: str, prompt: str) -> str:
    """Return a text without the prompt that a model began it with, in whatever case."""
    text = " ".join(text.split())
    return text[len(prompt) :].strip() if text.lower().startswith(prompt.lower()) else text
