"""Products in their images, and images without a product, as small squares in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.pins.masks import Mask, decode_mask

UNSEEN_PRODUCT_SPLITS = ("unseen_product", "unseen_both")  # whose products nobody trains on


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardTables:
    """Paths of the catalogue's tables."""

    pins: Path
    kept: Path
    truth: Path
    masks: Path
    captions: Path


@dataclass(frozen=True, slots=True)
class ProductView:
    """A pin with a product, resized to a square."""

    pin_id: str
    product_id: str | None
    split: str
    pixels: Pixels  # [S, S, 3]
    mask: Mask  # [S, S], True is product, some of it
    background: str  # in words; "": unknown


@dataclass(frozen=True, slots=True)
class SceneView:
    """An image without a product, resized to a square."""

    pixels: Pixels  # [S, S, 3]
    background: str  # in words


def load_product_views(paths: RewardTables, *, splits: Collection[str], side: int, count: int) -> list[ProductView]:
    """Load at most `count` kept pins of `splits` whose mask was not rejected, spread evenly, in the order of their ids.

    In memory: 4 * side**2 bytes a pin.
    """
    split_of = _read_splits(paths, splits)
    mask_of = {
        row["pin_id"]: row["mask"]
        for row in tables.iterate_rows(paths.masks, ["mask", "rejected"], split_of)
        if row["rejected"] is None
    }
    chosen = select_evenly(mask_of, count)
    words = read_backgrounds(paths.captions, mask_of)
    products = tables.read_column(paths.pins, "product_id", set(chosen))
    images = _read_squares(paths.pins, "image", chosen, side)
    masks = {pin_id: decode_square_mask(mask_of[pin_id], side) for pin_id in sorted(images)}
    return [
        ProductView(pin_id, products[pin_id], split_of[pin_id], images[pin_id], mask, words.get(pin_id, ""))
        for pin_id, mask in masks.items()
        if mask.any()
    ]


def load_background_views(paths: RewardTables, *, splits: Collection[str], side: int, count: int) -> list[SceneView]:
    """Load at most `count` images without a product, of kept pins of `splits` with words for the background.

    Spread evenly: pins without a product, and scenes before the product came in, where truth has them.
    """
    split_of = _read_splits(paths, splits)
    words = read_backgrounds(paths.captions, split_of)
    product_of = tables.read_column(paths.pins, "product_id", split_of)
    empty = {pin_id for pin_id, product in product_of.items() if product is None and words.get(pin_id)}
    scene_of = tables.read_column(paths.truth, "scene", split_of.keys() - empty)
    emptied = {pin_id for pin_id, scene in scene_of.items() if scene and words.get(pin_id)}
    chosen = set(select_evenly(empty | emptied, count))
    images = _read_squares(paths.pins, "image", chosen & empty, side)
    images |= _read_squares(paths.truth, "background", chosen & emptied, side)
    return [SceneView(images[pin_id], words[pin_id]) for pin_id in sorted(images)]


def resize_bilinear(image: Image.Image, side: int) -> Pixels:
    """Return the whole image as a square, as the reward model resizes its inputs: antialiased, bilinear."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def decode_square_mask(png: bytes, side: int) -> Mask:
    """Return the whole mask in `png` as a square."""
    return resize_bilinear(Image.fromarray(decode_mask(png).astype(np.uint8) * 255), side) >= 128


def _read_splits(paths: RewardTables, splits: Collection[str]) -> dict[str, str]:
    kept = tables.read_kept_splits(paths.pins, paths.kept)
    return {pin: split for pin, split in kept.items() if split in splits}


def _read_squares(table: Path, column: str, pin_ids: Collection[str], side: int) -> dict[str, Pixels]:
    if not pin_ids:
        return {}
    rows = tables.iterate_rows(table, [column], set(pin_ids))
    return {
        row["pin_id"]: resize_bilinear(composite_on_white(decode_image(row[column])), side)
        for row in tqdm(rows, total=len(pin_ids), desc=f"{column}s", unit="pin")
        if row[column] is not None
    }
