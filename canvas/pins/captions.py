"""Captions of pins: "{product}, {background}", and the texts that a pin came with.

The comma parts what is sold from where it is shown, so that a generator can be given the one without the other. An
image without a product has only the background.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from canvas.pins import tables

MAX_CHARACTERS = 1000
"""Characters of a text that are read, from its beginning: no text tower has room for more."""

NameSource = Literal["title", "caption"]
"""What names a product: the catalogue's titles of it, or the generated caption of the image, which may err."""

_COLUMNS = {  # source -> column, in the order of a pin's rows
    "title": "title",
    "description": "description",
    "alt": "alt_text",
    "generated": "generated",
}


def format_caption(product: str | None, background: str) -> str:
    """Format the caption of a product (None: a view alone) before a background: lower case, one comma, between them."""
    parts = [" ".join(part.replace(",", " ").split()) for part in (product, background) if part]
    return ", ".join(parts).lower()


def fit_caption(product: str | None, background: str, get_overflow: Callable[[str], str]) -> str:
    """Return what `format_caption` returns, with as much of the product's name as has room, the beginning of it.

    Titles of catalogues may be of any length. A background that has no room by itself loses its end.

    Args:
        get_overflow: Text -> the end of it that has no room, or "".
    """
    caption = format_caption(product and product[:MAX_CHARACTERS], background[:MAX_CHARACTERS])
    if not get_overflow(caption):
        return caption
    if not get_overflow(format_caption(None, background[:MAX_CHARACTERS])):
        name = _cut_text(product or "", lambda part: not get_overflow(format_caption(part, background)))
        return format_caption(name, background)
    return format_caption(None, _cut_text(background, lambda part: not get_overflow(format_caption(None, part))))


def parse_caption(caption: str) -> tuple[str | None, str]:
    """Split what `format_caption` made into the product (None: a view alone) and the background."""
    product, comma, background = caption.partition(",")
    return (product.strip(), background.strip()) if comma else (None, caption.strip())


def select_owner_caption(pin: Mapping[str, object]) -> str | None:
    """Return what a pin's owner says it shows: the alt text, else the title; None if both are empty."""
    return _normalize_spaces(pin["alt_text"]) or _normalize_spaces(pin["title"])


def iterate_texts(pin: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield (source, text) of a pin's title, description, alt_text and generated caption; empty ones are left out."""
    for source, column in _COLUMNS.items():
        if text := _normalize_spaces(pin[column]):
            yield source, text


def read_generated_captions(captions: Path, pin_ids: Collection[str]) -> dict[str, tuple[str | None, str]]:
    """Read pin_id -> product (None: a view alone) and background of the generated captions of `pin_ids`."""
    rows = tables.read(captions, ["pin_id", "source", "caption"]).to_pylist()
    generated = (row for row in rows if row["source"] == "generated" and row["pin_id"] in pin_ids)
    return {row["pin_id"]: parse_caption(row["caption"]) for row in generated}


def read_backgrounds(captions: Path, pin_ids: Collection[str], *, of_products: bool = False) -> dict[str, str]:
    """Read pin_id -> background that its generated caption names; with `of_products` only beside a product's name."""
    parts_of = read_generated_captions(captions, pin_ids)
    return {pin: place for pin, (product, place) in parts_of.items() if place and (product or not of_products)}


def read_captions(captions: Path, pin_ids: Collection[str], sources: Sequence[str]) -> dict[str, list[str]]:
    """Read pin_id -> its captions from `sources`, in their order; ValueError if no pin of `pin_ids` has one.

    A source of several, as "generated+alt", is one longer caption: the first of each that the pin has, after commas.
    """
    names = list(dict.fromkeys(part for source in sources for part in source.split("+")))
    texts_of: dict[str, list[tuple[int, str]]] = {}  # number of the source, caption
    for row in tables.read(captions, ["pin_id", "source", "caption"]).to_pylist():
        if row["pin_id"] in pin_ids and row["source"] in names:
            texts_of.setdefault(row["pin_id"], []).append((names.index(row["source"]), row["caption"]))
    if not texts_of:
        raise ValueError(f"no pin has a caption from {list(sources)}: name sources that {captions} holds")
    parts = [[names.index(part) for part in source.split("+")] for source in sources]
    return {
        pin: [text for numbers in parts for text in _list_captions(texts, numbers)] for pin, texts in texts_of.items()
    }


def _list_captions(texts: Sequence[tuple[int, str]], numbers: Sequence[int]) -> list[str]:
    """Return the captions of the source of that number, or the first ones of several sources as one."""
    by_source = [sorted(text for source, text in texts if source == number) for number in numbers]
    if len(numbers) == 1:
        return by_source[0]
    caption = ", ".join(of_source[0] for of_source in by_source if of_source)
    return [caption] if caption else []


def _cut_text(text: str, fits: Callable[[str], bool]) -> str:
    """Return the longest beginning of `text` that fits, of whole words if it has one."""
    low, high = 0, min(len(text), MAX_CHARACTERS)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle - 1)
    cut = text[:low]
    return cut if text[low : low + 1].isspace() else cut.rpartition(" ")[0] or cut


def _normalize_spaces(text: object) -> str | None:
    return " ".join(str(text).split()) or None if text is not None else None
