"""Collages: products of other pins on a scene, since a pin shows one product, and that large.

Who asks for a row of products, or for one on a tall canvas, asks for what no pin shows. A collage is a view of a scene
alone, with one or several products beside each other on it. Which, how large and where they stand is a function of
the seed, the scene and the view, and of the ids of all pins that are eligible; it draws from generators of its own, so
other views are as without collages.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zlib import crc32

import cv2
import numpy as np

from canvas.layout.arrangement import Spot, Spots
from canvas.layout.compose import Cutout, compose_products
from canvas.layout.spec import Layout
from canvas.masks.composite import ALPHA_FLOOR
from canvas.masks.simulation import erode_by_disk
from canvas.pins import tables
from canvas.pins.captions import read_generated_captions
from canvas.pins.frames import Size
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.pins.masks import Box, Mask, blend_pixels, compute_box, decode_mask
from canvas.shards.spec import CollageSpec

MARGIN = 0.03
"""Share of the frame's width that stays free beside the products."""
MAX_GAP = 0.1
"""Share of the frame's width between two products, at most."""
GROUND = (0.7, 0.96)
"""Where the ground lies that products stand on, in shares of the frame's height from above."""
UNEVENNESS = 0.04
"""Share of the frame's height by which a product's bottom may be above the ground."""
RIM_SHARE = 0.005
"""Share of the square root of a product's area that its edge is cut back by: there colours are mixed with its old
background's, which would be a fringe before another one."""
MIN_RIM = 1.0
"""The same in pixels, at least."""
BLUR = 0.5
"""Pixels by which the edge is blurred (sigma)."""
NOTHING_SEEN = ("empty", "too small")
"""Why a scene's mask is rejected. For other reasons it may be that of a product, which would stay, without a mask."""
MAX_TRIES = 4
"""Pins drawn for each product that is wanted, for one with another name."""

Draw = Literal[1, 2]
"""What a generator draws: the products, their places. Each its own, as products are chosen before they are read."""


@dataclass(frozen=True, slots=True)
class EncodedCutout:
    """A pin's image and the mask of its product as tables hold them: many pixels would take much room."""

    image: bytes
    mask: bytes

    def decode(self) -> Cutout:
        """Return the product, cropped to the box round it.

        Its alpha is made of its mask: a segmenter's own is below 1 all over many a product, which would be glass.
        """
        pixels, mask = np.asarray(composite_on_white(decode_image(self.image))), decode_mask(self.mask)
        core = erode_by_disk(mask, max(MIN_RIM, RIM_SHARE * float(np.sqrt(mask.sum()))))
        alpha = cv2.GaussianBlur((core if core.any() else mask).astype(np.float32), (0, 0), BLUR)
        left, top, right, bottom = compute_box(alpha > ALPHA_FLOOR)
        region = slice(top, bottom), slice(left, right)
        return Cutout(pixels[region], np.asarray(alpha[region], np.float32))


@dataclass(frozen=True, slots=True)
class Collage:
    """A scene in its frame with products on it."""

    pixels: Pixels
    mask: Mask  # of all products
    products: tuple[str, ...]  # ids of their pins, from left to right


@dataclass
class Collages:
    """Which views are collages, and how they are made."""

    spec: CollageSpec
    seed: int
    names: Mapping[str, str]  # pin_id -> name of its product, ids ascending
    places: Mapping[str, str]  # pin_id of a scene alone -> where it is

    def __post_init__(self) -> None:
        self._ids = tuple(self.names)

    @classmethod
    def read(
        cls, spec: CollageSpec, seed: int, pins: Path, masks: Path, captions: Path, pin_ids: Collection[str]
    ) -> Collages:
        """Read what collages of `pin_ids`, all of the train split, can be made of.

        Products are whole, their mask is not rejected and the pin's generated caption names them. In a scene neither
        the segmenter nor the generated caption sees a product.
        """
        boxes: dict[str, Box] = {}
        scenes = set()
        for row in tables.iterate_rows(masks, ["box", "rejected"], pin_ids):
            if row["rejected"] is None:
                boxes[row["pin_id"]] = row["box"]
            elif row["rejected"] in NOTHING_SEEN:
                scenes.add(row["pin_id"])
        whole = {
            row["pin_id"]
            for row in tables.iterate_rows(pins, ["width", "height"], boxes)
            if _is_inside(boxes[row["pin_id"]], (row["height"], row["width"]))
        }
        parts = read_generated_captions(captions, pin_ids)
        names = {pin_id: product for pin_id, (product, _) in sorted(parts.items()) if product and pin_id in whole}
        places = {
            pin_id: place for pin_id, (product, place) in parts.items() if place and not product and pin_id in scenes
        }
        return cls(spec, seed, names, places)

    def choose_products(self, pin_id: str, number: int) -> tuple[str, ...]:
        """Return the pins whose products are to be laid on view `number` of a pin, no two of one name; (): none."""
        if number == 0 or pin_id not in self.places or not self.names:
            return ()
        rng = self._start_generator(pin_id, number, 1)
        if rng.random() >= self.spec.share:
            return ()
        count = int(rng.integers(1, self.spec.products + 1))
        pin_of_name: dict[str, str] = {}
        for place in rng.choice(len(self._ids), min(len(self._ids), MAX_TRIES * count), replace=False):
            pin_of_name.setdefault(self.names[self._ids[place]], self._ids[place])
        return tuple(pin_of_name.values())[:count]

    def read_cutouts(
        self, views: Collection[tuple[str, int]], pins: tables.RowsById, masks: tables.RowsById
    ) -> dict[str, EncodedCutout]:
        """Read pin_id -> cut-out of the products of these views, each table once."""
        ids = {product for view in views for product in self.choose_products(*view)}
        image_of = {row["pin_id"]: row["image"] for row in pins.read(ids, ("pin_id", "image"))}
        rows = masks.read(ids, ("pin_id", "mask"))
        return {row["pin_id"]: EncodedCutout(image_of[row["pin_id"]], row["mask"]) for row in rows}

    def make_collage(
        self, pin_id: str, number: int, scene: Pixels, cutouts: Mapping[str, EncodedCutout]
    ) -> Collage | None:
        """Lay the products that `choose_products` returns on the scene's pixels, [H, W, 3].

        Those that find no room, in the order of the choice, are left out. None: all of them, or one is so thin that
        nothing of it is left at its size.
        """
        if not (products := self.choose_products(pin_id, number)):
            return None
        decoded = [cutouts[product].decode() for product in products]
        frame = scene.shape[0], scene.shape[1]
        rng = self._start_generator(pin_id, number, 2)
        spots = place_row([_get_size(cutout) for cutout in decoded], frame, self.spec.sizes, rng)
        if not spots:
            return None
        try:
            composition = compose_products(decoded[: len(spots)], Layout(frame, Spots(spots), {}))
        except ValueError:
            return None
        pixels = blend_pixels(composition.pixels, composition.alpha, scene)
        return Collage(pixels, composition.alpha >= 0.5, products[: len(spots)])

    def get_caption_parts(self, pin_id: str, products: Sequence[str]) -> tuple[str, str]:
        """Return what a collage on that pin's scene shows, as "mug and lamp", and where."""
        return " and ".join(self.names[product] for product in products), self.places[pin_id]

    def _start_generator(self, pin_id: str, number: int, draw: Draw) -> np.random.Generator:
        return np.random.default_rng([self.seed, crc32(pin_id.encode()), number, draw])


def place_row(
    boxes: Sequence[Size], frame: Size, sizes: tuple[float, float], rng: np.random.Generator
) -> tuple[Spot, ...]:
    """Place products beside each other, all inside the frame, their bottoms near one line in its lower part.

    Heights are drawn log-uniformly, and rounded down to pixels. A row that is too wide is made smaller as a whole; if
    one product would become smaller than `sizes` allow, the last is left out instead. (): the first has no room.

    Args:
        boxes: Height and width of each product in its image.
        frame: Height and width, in pixels.
        sizes: Bounds of a product's height over the frame's.
        rng: Draws heights and places.
    """
    drawn = frame[0] * np.exp(rng.uniform(math.log(sizes[0]), math.log(sizes[1]), len(boxes)))
    aspects = np.array([width / height for height, width in boxes])
    margin = max(1, round(MARGIN * frame[1]))
    for count in range(len(boxes), 0, -1):
        room = frame[1] - 2 * margin - count  # a width may be rounded up
        heights = drawn[:count] * min(1.0, room / float((drawn * aspects)[:count].sum()))
        if heights.min() >= max(1.0, sizes[0] * frame[0] - 1e-6):
            return _spread_row([int(height) for height in heights], boxes, frame, margin, rng)
    return ()


def _spread_row(
    heights: Sequence[int], boxes: Sequence[Size], frame: Size, margin: int, rng: np.random.Generator
) -> tuple[Spot, ...]:
    widths = [max(1, round(wide * height / tall)) for height, (tall, wide) in zip(heights, boxes, strict=False)]
    free = frame[1] - 2 * margin - sum(widths)
    gaps = rng.uniform(0, MAX_GAP * frame[1], len(widths) - 1)
    gaps = np.floor(gaps * min(1.0, free / max(1.0, float(gaps.sum())))).astype(int)
    left = margin + int(rng.integers(free - int(gaps.sum()) + 1))
    ground = rng.uniform(*GROUND)
    spots = []
    for height, width, gap in zip(heights, widths, [*gaps.tolist(), 0], strict=True):
        bottom = round(frame[0] * (ground - rng.uniform(0, UNEVENNESS)))
        bottom = min(max(bottom, height + margin), frame[0])
        spots.append(Spot(left=left, top=bottom - height, width=None, height=height))
        left += width + gap
    return tuple(spots)


def _get_size(cutout: Cutout) -> Size:
    height, width = cutout.alpha.shape
    return height, width


def _is_inside(box: Box, size: Size) -> bool:
    """Tell whether a product is whole: it touches no side of its image, which may have cut it off."""
    left, top, right, bottom = box
    return left > 0 and top > 0 and right < size[1] and bottom < size[0]
