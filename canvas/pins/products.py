"""Pins whose product gets a new background: image, mask, and the product's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import NameSource, read_generated_captions
from canvas.pins.fallbacks import Notes, choose_splits
from canvas.pins.images import read_images
from canvas.pins.masks import Mask, decode_mask

MAX_BACKDROPS = 64
"""Images that products are pasted on, at most: all are in memory at once."""

MAX_TITLES = 50
"""Titles of a product that may be its name, the shortest ones."""

PLAIN_BACKDROP = Image.new("RGB", (64, 64), (128, 128, 128))
"""What products are pasted on where every image shows one of them."""


@dataclass(frozen=True, slots=True)
class ProductPin:
    """A pin, its product's mask and name."""

    pin_id: str
    image: Image.Image  # RGB
    mask: Mask
    product: str  # its name
    product_id: str | None = None
    category: str | None = None
    background: str = ""  # that the generated caption names; "": none


def load_product_pins(
    pins: Path,
    kept: Path,
    masks: Path,
    captions: Path,
    *,
    splits: Collection[str],
    count: int,
    names: NameSource = "title",
    notes: Notes | None = None,
) -> list[ProductPin]:
    """Load at most `count` kept pins of `splits` with an accepted mask, of as many products as there are.

    Args:
        pins: Table of the pins.
        kept: Table of what the filter says of them.
        masks: Table of their masks.
        captions: Table of their captions.
        splits: Where no such pin is of these, pins of other splits stand for them.
        count: How many at most.
        names: What names the products; the other does where that is missing.
        notes: Gets a line where other pins stand for missing ones.

    Raises:
        ValueError: No kept pin has an accepted mask.
    """
    good = {row["pin_id"]: row["mask"] for row in tables.read(masks).to_pylist() if row["rejected"] is None}
    split_of = tables.read_kept_splits(pins, kept)
    present = [split for pin, split in split_of.items() if pin in good]
    splits = choose_splits(present, splits, notes or Notes())
    turns: dict[str, list[str]] = {}
    titles: dict[str, list[str]] = {}  # of every kept pin of a product
    rows = {}
    for row in tables.read(pins, ["pin_id", "product_id", "category", "title"]).to_pylist():
        if row["pin_id"] in split_of and row["product_id"] is not None:
            titles.setdefault(row["product_id"], []).append(row["title"] or "")
        if row["pin_id"] in good and split_of.get(row["pin_id"]) in splits:
            turns.setdefault(str(row["product_id"]), []).append(row["pin_id"])
            rows[row["pin_id"]] = row
    ranked = sorted((place, product, pin) for product, ids in turns.items() for place, pin in enumerate(sorted(ids)))
    chosen = [pin for _, _, pin in ranked[:count]]
    if not chosen:
        raise ValueError("no kept pin has an accepted mask: there is nothing to show")
    generated = read_generated_captions(captions, chosen)
    captioned = {pin: product or "" for pin, (product, _) in generated.items()}
    titled = {pin: select_title(rows[pin]["title"] or "", titles.get(rows[pin]["product_id"], ())) for pin in chosen}
    first, second = (titled, captioned) if names == "title" else (captioned, titled)
    images = read_images(pins, chosen)
    return [
        ProductPin(
            pin_id=pin,
            image=images[pin],
            mask=decode_mask(good[pin]),
            product=first.get(pin) or second.get(pin) or "product",
            product_id=rows[pin]["product_id"],
            category=rows[pin]["category"],
            background=generated.get(pin, ("", ""))[1],
        )
        for pin in chosen
    ]


def select_title(pin_title: str, titles: Sequence[str]) -> str:
    """Return the shortest of a product's titles that stands in more than half of them, else the pin's own.

    People give one product several: "Red mug", "Style idea: Red mug in a lobby". A catalogue gives it one, its own.
    """
    counts = Counter(text for title in titles if (text := " ".join(title.split())))
    for title in sorted(counts, key=lambda title: (len(title), title))[:MAX_TITLES]:
        sharing = sum(count for other, count in counts.items() if title.lower() in other.lower())
        if 2 * sharing > counts.total():
            return title
    return " ".join(pin_title.split())


def read_backdrops(pins: Path, kept: Path, excluded: Collection[str], notes: Notes) -> list[Image.Image]:
    """Return at most MAX_BACKDROPS images of kept pins to paste products on: without a product where there are any;
    where every kept pin is `excluded`, which is noted, plain grey."""
    split_of = tables.read_kept_splits(pins, kept)
    rows = tables.read(pins, ["pin_id", "product_id"]).to_pylist()
    others = [row for row in rows if row["pin_id"] in split_of.keys() - set(excluded)]
    views = [row["pin_id"] for row in others if row["product_id"] is None] or [row["pin_id"] for row in others]
    if not views:
        notes.add("every kept pin is a product to be shown, so products were pasted on plain grey")
        return [PLAIN_BACKDROP]
    return list(read_images(pins, sorted(views)[:MAX_BACKDROPS]).values())
