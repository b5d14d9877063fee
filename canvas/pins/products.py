"""Pins whose product is to be shown on another background: picture, mask, and the product's name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import parse_caption
from canvas.pins.images import composite_on_white, decode_image
from canvas.pins.masks import Mask, decode_mask


@dataclass(frozen=True, slots=True)
class ProductPin:
    """One of them."""

    pin_id: str
    image: Image.Image  # RGB
    mask: Mask
    product: str  # its name, from the generated caption, else the title


def load_product_pins(
    pins: Path, kept: Path, masks: Path, captions: Path, *, splits: Collection[str], count: int
) -> list[ProductPin]:
    """At most `count` kept pins of `splits` whose mask was not rejected, as many different products as there are.

    Raises `ValueError` if there is none.
    """
    good = {row["pin_id"]: row["mask"] for row in tables.read(masks).to_pylist() if row["rejected"] is None}
    split_of = tables.read_kept_splits(pins, kept)
    turns: dict[str, list[str]] = {}
    titles = {}
    for row in tables.read(pins, ["pin_id", "product_id", "title"]).to_pylist():
        if row["pin_id"] in good and split_of.get(row["pin_id"]) in splits:
            turns.setdefault(str(row["product_id"]), []).append(row["pin_id"])
            titles[row["pin_id"]] = row["title"] or "product"
    ranked = sorted((place, product, pin) for product, ids in turns.items() for place, pin in enumerate(sorted(ids)))
    chosen = [pin for _, _, pin in ranked[:count]]
    if not chosen:
        raise ValueError(f"no kept pin of {', '.join(sorted(splits))} has an accepted mask: there is nothing to show")
    names = _read_product_names(captions, chosen)
    images = {
        row["pin_id"]: composite_on_white(decode_image(row["image"]))
        for batch in tables.read_batches(pins, ["pin_id", "image"])
        for row in batch.to_pylist()
        if row["pin_id"] in chosen
    }
    return [ProductPin(pin, images[pin], decode_mask(good[pin]), names.get(pin) or titles[pin]) for pin in chosen]


def _read_product_names(captions: Path, wanted: Collection[str]) -> dict[str, str]:
    found = {}
    for row in tables.read(captions).to_pylist():
        if row["pin_id"] in wanted and row["source"] == "generated" and (name := parse_caption(row["caption"])[0]):
            found[row["pin_id"]] = name
    return found
