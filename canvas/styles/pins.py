"""Pins that show a style: the images that a generator follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.image_batches import load_square_images, select_evenly
from canvas.pins.images import draw_contact_sheet, encode_png, read_images
from canvas.pins.masks import decode_alpha
from canvas.pins.scene_views import Views, stack_views
from canvas.styles.table import Style

STRIP_SIDE = 96
"""Pixels of an image on the strip of a style."""


@dataclass(frozen=True, slots=True)
class StylePin:
    """An image of a product in a scene."""

    pin_id: str
    image: Image.Image  # RGB
    background: str  # in words, from the generated caption
    scene: str | None  # None: unknown
    category: str | None  # of the product in it
    product_id: str | None


def read_style_pins(
    pins: Path, kept: Path, truth: Path, captions: Path, *, splits: Collection[str], scenes: int, each: int
) -> dict[str, list[StylePin]]:
    """Read kept pins of `splits` that show a product before a background that has words, by scene.

    At most `each` of a scene, of products as different as there are, and at most `scenes` scenes, spread evenly. Words
    are the generated caption's, or where no caption names a product and a background the scene's name, or where truth
    knows no scene the whole caption; the background then stands for the scene, too.
    """
    split_of = tables.read_kept_splits(pins, kept)
    truth_rows = tables.read(truth, ["pin_id", "kind", "scene"]).to_pylist()
    scene_of = {row["pin_id"]: row["scene"] for row in truth_rows}
    background_of = (
        read_backgrounds(captions, split_of, of_products=True)
        or {row["pin_id"]: row["scene"] for row in truth_rows if row["kind"] == "in_scene" and row["scene"]}
        or read_backgrounds(captions, split_of if not truth_rows else ())
    )
    candidates: dict[str, dict[tuple[int, str], dict[str, str]]] = {}  # scene -> (turn of its product, pin) -> row
    turns: Counter[tuple[str, str]] = Counter()
    for row in tables.read(pins, ["pin_id", "category", "product_id"]).to_pylist():
        pin = row["pin_id"]
        scene = scene_of.get(pin) or (background_of.get(pin) if not scene_of else None)
        if split_of.get(pin) not in splits or not background_of.get(pin) or not scene:
            continue
        product = scene, str(row["product_id"])
        candidates.setdefault(scene, {})[turns[product], pin] = row
        turns[product] += 1
    rows_of = {
        scene: [candidates[scene][place] for place in sorted(candidates[scene])[:each]]
        for scene in select_evenly(candidates, scenes)
    }
    images = read_images(pins, {row["pin_id"] for rows in rows_of.values() for row in rows})
    return {
        scene: [
            StylePin(
                pin_id=row["pin_id"],
                image=images[row["pin_id"]],
                background=background_of[row["pin_id"]],
                scene=scene_of.get(row["pin_id"]),
                category=row["category"],
                product_id=row["product_id"],
            )
            for row in rows
        ]
        for scene, rows in rows_of.items()
    }


def draw_style_strips(styles: Sequence[Style], pins: Path, count: int) -> dict[str, bytes]:
    """Draw the first `count` images of every style that was not dropped, as PNG by style_id."""
    pins_of = {style.style_id: style.pins[:count] for style in styles if not style.dropped}
    pin_ids = {pin for members in pins_of.values() for pin in members}
    if not pin_ids:
        return {}
    images = dict(zip(*load_square_images(pins, pin_ids, STRIP_SIDE), strict=True))
    return {
        style_id: encode_png(
            draw_contact_sheet(
                [Image.fromarray(images[pin]) for pin in members], [""] * len(members), columns=count, cell=STRIP_SIDE
            )
        )
        for style_id, members in pins_of.items()
    }


@dataclass(frozen=True, slots=True)
class LabelledProducts:
    """Pins of a known product, as small squares, with and without it."""

    views: Views
    masks: NDArray[np.bool_]  # [N, side, side], True is product
    categories: list[str]
    backgrounds: Views  # without the product


def read_labelled_products(
    pins: Path, kept: Path, truth: Path, *, splits: Collection[str], side: int, count: int
) -> LabelledProducts:
    """Read at most `count` kept pins of `splits`, spread evenly; none where truth knows nothing."""
    split_of = tables.read_kept_splits(pins, kept)
    category = dict(zip(*tables.read(pins, ["pin_id", "category"]).to_pydict().values(), strict=True))
    labelled = [
        row["pin_id"]
        for row in tables.read(truth, ["pin_id", "kind"]).to_pylist()
        if row["kind"] == "in_scene" and split_of.get(row["pin_id"]) in splits and category.get(row["pin_id"])
    ]
    chosen = set(select_evenly(labelled, count))
    images, backgrounds = read_images(pins, chosen), read_images(truth, chosen, "background")
    alphas = {pin: decode_alpha(alpha) for pin, alpha in tables.read_column(truth, "alpha", chosen).items() if alpha}
    complete = sorted(chosen & images.keys() & backgrounds.keys() & alphas.keys())
    greys = [Image.fromarray((alphas[pin] * 255).astype(np.uint8)) for pin in complete]
    return LabelledProducts(
        views=stack_views([images[pin] for pin in complete], side),
        masks=stack_views(greys, side).reshape(-1, side, side) >= 128,
        categories=[category[pin] for pin in complete],
        backgrounds=stack_views([backgrounds[pin] for pin in complete], side),
    )
