"""Products in their pictures, and pictures without a product, as small squares in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.pins.masks import Mask, decode_mask


@dataclass(frozen=True, slots=True)
class ProductView:
    """A pin with a product, squeezed into a square."""

    pin_id: str
    product_id: str | None
    split: str
    pixels: Pixels  # [S, S, 3]
    mask: Mask  # [S, S], True is product, some of it
    background: str  # in words; "": unknown


@dataclass(frozen=True, slots=True)
class SceneView:
    """A picture without a product, squeezed into a square."""

    pixels: Pixels  # [S, S, 3]
    background: str  # in words


def load_product_views(
    pins: Path, kept: Path, masks: Path, captions: Path, *, splits: Collection[str], side: int, count: int
) -> list[ProductView]:
    """At most `count` kept pins of `splits` whose mask was not rejected, spread evenly, in the order of their ids.

    In memory: 4 * side**2 bytes a pin. Raises `ValueError` if there is none.
    """
    split_of = {pin: split for pin, split in tables.read_kept_splits(pins, kept).items() if split in splits}
    good = {
        row["pin_id"]: row["mask"]
        for row in tables.read(masks, ["pin_id", "mask", "rejected"]).to_pylist()
        if row["rejected"] is None and row["pin_id"] in split_of
    }
    chosen = _spread(sorted(good), count)
    if not chosen:
        raise ValueError(f"no kept pin of {', '.join(sorted(splits))} has an accepted mask: there is nothing to judge")
    words = read_backgrounds(captions, good)
    products = dict(zip(*tables.read(pins, ["pin_id", "product_id"]).to_pydict().values(), strict=True))
    found = {}
    for pin_id, image in _read_images(pins, "image", chosen, side):
        mask = resize_bilinear(Image.fromarray(decode_mask(good[pin_id]).astype(np.uint8) * 255), side) >= 128
        if mask.any():
            found[pin_id] = ProductView(pin_id, products[pin_id], split_of[pin_id], image, mask, words.get(pin_id, ""))
    return [found[pin_id] for pin_id in sorted(found)]


def load_background_views(
    pins: Path, kept: Path, truth: Path, captions: Path, *, splits: Collection[str], side: int, count: int
) -> list[SceneView]:
    """At most `count` pictures without a product, of kept pins of `splits` whose background has words, spread evenly:
    pins that show none, and pictures from before the product came in where truth has them."""
    split_of = {pin: split for pin, split in tables.read_kept_splits(pins, kept).items() if split in splits}
    words = read_backgrounds(captions, split_of)
    empty = {
        row["pin_id"]: "image"
        for row in tables.read(pins, ["pin_id", "product_id"]).to_pylist()
        if row["product_id"] is None and row["pin_id"] in split_of and words.get(row["pin_id"])
    }
    emptied = {
        row["pin_id"]: "background"
        for row in tables.read(truth, ["pin_id", "scene"]).to_pylist()
        if row["scene"] and row["pin_id"] in split_of.keys() - empty.keys() and words.get(row["pin_id"])
    }
    chosen = _spread(sorted(empty | emptied), count)
    found = dict(_read_images(pins, "image", [pin for pin in chosen if pin in empty], side))
    found |= _read_images(truth, "background", [pin for pin in chosen if pin in emptied], side)
    return [SceneView(found[pin_id], words[pin_id]) for pin_id in sorted(found)]


def _spread(ranked: list[str], count: int) -> list[str]:
    return [ranked[at] for at in np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def _read_images(table: Path, column: str, wanted: Collection[str], side: int) -> list[tuple[str, Pixels]]:
    if not wanted:
        return []
    left, found = set(wanted), []
    with tqdm(total=len(left), desc=f"{column}s", unit="pin") as bar:
        for batch in tables.read_batches(table, ["pin_id", column]):
            for row in batch.to_pylist():
                if row["pin_id"] in left and row[column] is not None:
                    found.append((row["pin_id"], resize_bilinear(composite_on_white(decode_image(row[column])), side)))
                    bar.update()
    return found


def resize_bilinear(image: Image.Image, side: int) -> Pixels:
    """The whole picture as a square, as the reward model squeezes what it is shown: antialiased, bilinear."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
