"""Captions of pins: "{product}, {background}", and the texts that a pin came with.

The comma parts what is sold from where it is shown, so that a generator can be told the one without the other. A
picture without a product has only the background.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from canvas.data import tables
from canvas.data.showroom.scenes import SCENES

ON_WHITE = "on a white background"

_COLUMNS = {  # source -> column, in the order of a pin's rows
    "title": "title",
    "description": "description",
    "alt": "alt_text",
    "generated": "generated",
}
_PLACES = {scene.words: scene.place for scene in SCENES}
_PLAIN = "on a plain background"


def joined(product: str | None, background: str) -> str:
    """The caption of a product (none: a view alone) before a background, in lower case.

    Commas within the parts become spaces: the caption's only comma parts the two.
    """
    parts = [" ".join(part.replace(",", " ").split()) for part in (product, background) if part]
    return ", ".join(parts).lower()


def parted(caption: str) -> tuple[str | None, str]:
    """The product (None: a view alone) and the background of a caption that `joined` made."""
    product, comma, background = caption.partition(",")
    return (product.strip(), background.strip()) if comma else (None, caption.strip())


def true_caption(pin: Mapping[str, object], truth: Mapping[str, object]) -> str:
    """What a showroom pin shows: the product's name from its alt text, the place from truth.

    `pin` needs alt_text; `truth` needs kind and scene. A picture whose place is unknown to the showroom is a bug.
    """
    place = None if truth["scene"] is None else _PLACES[str(truth["scene"])]
    match truth["kind"]:
        case "scene":
            return joined(None, str(place))
        case "on_white":
            return joined(str(pin["alt_text"]).removesuffix(_PLAIN), ON_WHITE)
        case _:
            return joined(str(pin["alt_text"]).removesuffix(str(place)), str(place))


def delivered_caption(pin: Mapping[str, object]) -> str | None:
    """What a pin's owner says it shows: the alt text, else the title; None if both are empty."""
    return _clean(pin["alt_text"]) or _clean(pin["title"])


def texts_of(pin: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(source, text) of a pin with title, description, alt_text and generated; empty ones are left out, white space is
    made single."""
    for source, column in _COLUMNS.items():
        if text := _clean(pin[column]):
            yield source, text


@dataclass(frozen=True, slots=True)
class PinWords:
    """What training and scoring of captions need to know of a pin besides its picture."""

    split: str
    category: str
    caption: str
    scene: str | None
    true: bool  # truth knows the pin


def words_of_pins(pins: Path, truth: Path, splits: Mapping[str, str]) -> dict[str, PinWords]:
    """The pins of `splits` with their captions: the showroom's truth, else the alt text or title they came with.

    Pins without any are left out.
    """
    known = {row["pin_id"]: row for row in tables.read(truth, ["pin_id", "kind", "scene"]).to_pylist()}
    found = {}
    for row in tables.read(pins, ["pin_id", "title", "alt_text", "category"]).to_pylist():
        if row["pin_id"] not in splits:
            continue
        true = known.get(row["pin_id"])
        caption = delivered_caption(row) if true is None else true_caption(row, true)
        if caption:
            scene = None if true is None else true["scene"]
            found[row["pin_id"]] = PinWords(
                splits[row["pin_id"]], row["category"] or "", caption, scene, true is not None
            )
    return found


def backgrounds(captions: Path, wanted: Collection[str], *, of_products: bool = False) -> dict[str, str]:
    """The background that the generated caption of each `wanted` pin names; pins without one are left out, and with
    `of_products` those whose caption names no product before it."""
    rows = tables.read(captions, ["pin_id", "source", "caption"]).to_pylist()
    said = {
        row["pin_id"]: parted(row["caption"])
        for row in rows
        if row["source"] == "generated" and row["pin_id"] in wanted
    }
    return {pin: place for pin, (product, place) in said.items() if place and (product or not of_products)}


def _clean(text: object) -> str | None:
    return " ".join(str(text).split()) or None if text is not None else None
