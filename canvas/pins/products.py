"""Pins whose product gets a new background: image, mask, and the product's name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import read_generated_captions
from canvas.pins.fallbacks import Notes, choose_splits
from canvas.pins.images import read_images
from canvas.pins.masks import Mask, decode_mask

MAX_BACKDROPS = 64
"""Images that products are pasted on, at most: all are in memory at once."""


@dataclass(frozen=True, slots=True)
class ProductPin:
    """A pin, its product's mask and name."""

    pin_id: str
    image: Image.Image  # RGB
    mask: Mask
    product: str  # its name, from the generated caption, else the title
    product_id: str | None = None
    category: str | None = None


def load_product_pins(
    pins: Path,
    kept: Path,
    masks: Path,
    captions: Path,
    *,
    splits: Collection[str],
    count: int,
    notes: Notes | None = None,
) -> list[ProductPin]:
    """Load at most `count` kept pins of `splits` with an accepted mask, of as many products as there are.

    Where no such pin is of `splits`, those of other splits stand for them, which is noted. Raises `ValueError` if no
    kept pin has an accepted mask.
    """
    good = {row["pin_id"]: row["mask"] for row in tables.read(masks).to_pylist() if row["rejected"] is None}
    split_of = tables.read_kept_splits(pins, kept)
    present = [split for pin, split in split_of.items() if pin in good]
    splits = choose_splits(present, splits, notes or Notes())
    turns: dict[str, list[str]] = {}
    rows = {}
    for row in tables.read(pins, ["pin_id", "product_id", "category", "title"]).to_pylist():
        if row["pin_id"] in good and split_of.get(row["pin_id"]) in splits:
            turns.setdefault(str(row["product_id"]), []).append(row["pin_id"])
            rows[row["pin_id"]] = row
    ranked = sorted((place, product, pin) for product, ids in turns.items() for place, pin in enumerate(sorted(ids)))
    chosen = [pin for _, _, pin in ranked[:count]]
    if not chosen:
        raise ValueError("no kept pin has an accepted mask: there is nothing to show")
    names = read_generated_captions(captions, chosen)
    images = read_images(pins, chosen)
    return [
        ProductPin(
            pin_id=pin,
            image=images[pin],
            mask=decode_mask(good[pin]),
            product=names.get(pin, ("", ""))[0] or rows[pin]["title"] or "product",
            product_id=rows[pin]["product_id"],
            category=rows[pin]["category"],
        )
        for pin in chosen
    ]


def read_backdrops(pins: Path, kept: Path, excluded: Collection[str]) -> list[Image.Image]:
    """Return at most MAX_BACKDROPS images of kept pins to paste products on: without a product where there are any.
    Raises `ValueError` if every kept pin is `excluded`."""
    split_of = tables.read_kept_splits(pins, kept)
    rows = tables.read(pins, ["pin_id", "product_id"]).to_pylist()
    others = [row for row in rows if row["pin_id"] in split_of.keys() - set(excluded)]
    views = [row["pin_id"] for row in others if row["product_id"] is None] or [row["pin_id"] for row in others]
    if not views:
        raise ValueError("every kept pin is a product to be shown: sample_candidates.products must leave some")
    return list(read_images(pins, sorted(views)[:MAX_BACKDROPS]).values())
