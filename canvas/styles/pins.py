"""Pins that show a style: which pictures the generator is handed when it is asked to follow one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import composite_on_white, decode_image
from canvas.pins.masks import decode_alpha
from canvas.pins.scene_views import Views, crop_center_square


@dataclass(frozen=True, slots=True)
class StylePin:
    """A picture of a product in a scene."""

    pin_id: str
    image: Image.Image  # RGB
    background: str  # in words, from the generated caption
    scene: str | None  # None: truth does not know it
    category: str | None  # of the product in it
    product_id: str | None


def read_style_pins(
    pins: Path, kept: Path, truth: Path, captions: Path, *, splits: Collection[str], scenes: int, each: int
) -> dict[str, list[StylePin]]:
    """Kept pins of `splits` that show a product before a background that has words, at most `each` of a scene, of
    products as different as there are; by scene, or where none is known by background, at most `scenes` of them,
    spread evenly. ValueError if there is none.

    Words are the generated caption's; where no caption names a background, they are the scene's name.
    """
    split_of = tables.read_kept_splits(pins, kept)
    known = tables.read(truth, ["pin_id", "kind", "scene"]).to_pylist()
    scene_of = {row["pin_id"]: row["scene"] for row in known}
    words = read_backgrounds(captions, split_of, of_products=True) or {
        row["pin_id"]: row["scene"] for row in known if row["kind"] == "in_scene" and row["scene"]
    }
    found: dict[str, dict[tuple[int, str], dict[str, str]]] = {}
    turns: dict[tuple[str, str], int] = {}
    for row in tables.read(pins, ["pin_id", "category", "product_id"]).to_pylist():
        pin = row["pin_id"]
        named = scene_of.get(pin) or (words.get(pin) if not scene_of else None)
        if split_of.get(pin) not in splits or not words.get(pin) or not named:
            continue
        turn = turns[named, str(row["product_id"])] = turns.get((named, str(row["product_id"])), -1) + 1
        found.setdefault(named, {})[turn, pin] = row
    if not found:
        raise ValueError(f"no kept pin of {', '.join(sorted(splits))} shows a product in a scene: no style to follow")
    chosen = {
        named: [found[named][place] for place in sorted(found[named])[:each]] for named in select_evenly(found, scenes)
    }
    wanted = {row["pin_id"] for rows in chosen.values() for row in rows}
    images = _read_images(pins, "image", wanted)
    return {
        named: [
            StylePin(
                pin_id=row["pin_id"],
                image=images[row["pin_id"]],
                background=words[row["pin_id"]],
                scene=scene_of.get(row["pin_id"]),
                category=row["category"],
                product_id=row["product_id"],
            )
            for row in rows
        ]
        for named, rows in chosen.items()
    }


@dataclass(frozen=True, slots=True)
class LabelledProducts:
    """Pins whose product truth knows, as small squares, with and without it."""

    views: Views
    masks: NDArray[np.bool_]  # [N, side, side], True is product
    categories: list[str]
    backgrounds: Views  # before the product came in


def read_labelled_products(
    pins: Path, kept: Path, truth: Path, *, splits: Collection[str], side: int, count: int
) -> LabelledProducts:
    """At most `count` kept pins of `splits`, spread evenly; none where truth knows nothing."""
    split_of = tables.read_kept_splits(pins, kept)
    category = dict(zip(*tables.read(pins, ["pin_id", "category"]).to_pydict().values(), strict=True))
    ranked = sorted(
        row["pin_id"]
        for row in tables.read(truth, ["pin_id", "kind"]).to_pylist()
        if row["kind"] == "in_scene" and split_of.get(row["pin_id"]) in splits and category.get(row["pin_id"])
    )
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    chosen = {ranked[place] for place in places}
    images, empty = _read_images(pins, "image", chosen), _read_images(truth, "background", chosen)
    alphas = {
        row["pin_id"]: decode_alpha(row["alpha"])
        for batch in tables.read_batches(truth, ["pin_id", "alpha"])
        for row in batch.to_pylist()
        if row["pin_id"] in chosen and row["alpha"]
    }
    whole = sorted(chosen & images.keys() & empty.keys() & alphas.keys())
    none = np.zeros((0, side, side), np.uint8)
    grey = [crop_center_square(Image.fromarray((alphas[pin] * 255).astype(np.uint8)), side) >= 128 for pin in whole]
    return LabelledProducts(
        views=np.stack([crop_center_square(images[pin], side) for pin in whole])
        if whole
        else none[..., None].repeat(3, -1),
        masks=np.stack(grey) if whole else none.astype(bool),
        categories=[category[pin] for pin in whole],
        backgrounds=np.stack([crop_center_square(empty[pin], side) for pin in whole])
        if whole
        else none[..., None].repeat(3, -1),
    )


def _read_images(table: Path, column: str, wanted: Collection[str]) -> dict[str, Image.Image]:
    return {
        row["pin_id"]: composite_on_white(decode_image(row[column]))
        for batch in tables.read_batches(table, ["pin_id", column])
        for row in batch.to_pylist()
        if row["pin_id"] in wanted and row[column]
    }
