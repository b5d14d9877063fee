"""Places on a canvas: of a group of products by a rule, of each by itself, of a photograph that is extended.

Sizes are (height, width) in pixels, of the box round a product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from canvas.layout.formats import Rectangle
from canvas.pins.frames import Size

ANCHORS: Mapping[str, tuple[float, float]] = {
    "center": (0.5, 0.5),
    "top": (0.0, 0.5),
    "bottom": (1.0, 0.5),
    "left": (0.5, 0.0),
    "right": (0.5, 1.0),
    "top-left": (0.0, 0.0),
    "top-right": (0.0, 1.0),
    "bottom-left": (1.0, 0.0),
    "bottom-right": (1.0, 1.0),
}
"""Place -> share of the room above and to the left."""

MARGIN = 0.06
"""Share of the canvas's side that stays free beside a product at an edge, where there is room: it needs a ground."""
GAP = 0.04
"""Share of the canvas's shorter side between two products."""
DEFAULT_SCALE = 0.8
"""Scale of a group whose heights are given in parts of each other: they say nothing about pixels."""

Kind = Literal["row", "grid"]


class Arrangement(Protocol):
    """A rule for places."""

    def place(self, canvas: Size, sizes: Sequence[Size]) -> list[Rectangle]:
        """Return the box of each product on the canvas; ValueError in one sentence if it does not fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Products beside each other on one line, or in rows; one product is a group of its own.

    Args:
        kind: One row, or about as many rows as columns.
        anchor: As ANCHORS has them.
        scale: Share of the canvas's width or height, whichever is reached first, that the group takes; all products
            are resized by one factor. None: no pixel is resized.
        heights: In any unit, one each: how tall products are beside each other. None: as in their images.
    """

    kind: Kind
    anchor: tuple[float, float]
    scale: float | None
    heights: tuple[float, ...] | None

    def place(self, canvas: Size, sizes: Sequence[Size]) -> list[Rectangle]:
        """Return the box of each product on the canvas; ValueError in one sentence if it does not fit."""
        scale = self.scale
        relative = [(float(height), float(width)) for height, width in sizes]
        if self.heights is not None:
            if len(self.heights) != len(sizes):
                raise ValueError(f"{len(self.heights)} heights were given for {len(sizes)} products: give one each")
            relative = [
                (tall, tall * width / height) for tall, (height, width) in zip(self.heights, sizes, strict=True)
            ]
            scale = DEFAULT_SCALE if scale is None else scale
        columns = len(sizes) if self.kind == "row" else math.ceil(math.sqrt(len(sizes)))
        rows = [range(first, min(first + columns, len(sizes))) for first in range(0, len(sizes), columns)]
        gap = round(GAP * min(canvas))
        factor = 1.0 if scale is None else _fit_rows(canvas, relative, rows, gap, scale)
        boxes = [_scale_size(size, factor) for size in relative]
        return self._stack_rows(canvas, boxes, rows, gap)

    def _stack_rows(self, canvas: Size, boxes: Sequence[Size], rows: Sequence[range], gap: int) -> list[Rectangle]:
        tall = [max(boxes[place][0] for place in row) for row in rows]
        wide = [sum(boxes[place][1] for place in row) + gap * (len(row) - 1) for row in rows]
        group = sum(tall) + gap * (len(rows) - 1), max(wide)
        top, left = _place_box(canvas, group, self.anchor, MARGIN)
        placed = []
        for row, row_height, row_width in zip(rows, tall, wide, strict=True):
            across = left + (group[1] - row_width) // 2
            for place in row:
                height, width = boxes[place]
                placed.append(Rectangle(top + row_height - height, across, height, width))
                across += width + gap
            top += row_height + gap
        return placed


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """The place of one product: its upper left corner, and its width or height; neither: no pixel is resized."""

    left: int
    top: int
    width: int | None
    height: int | None
    floats: bool = False  # it has neither shadow nor reflection


@dataclass(frozen=True, slots=True)
class Spots:
    """A place for each product, in their order."""

    spots: tuple[Spot, ...]

    def place(self, canvas: Size, sizes: Sequence[Size]) -> list[Rectangle]:
        """Return the box of each product on the canvas; ValueError in one sentence if it does not fit."""
        if len(sizes) != len(self.spots):
            raise ValueError(f"the layout has {len(self.spots)} products, {len(sizes)} were given: one each is needed")
        placed = []
        for number, (spot, (tall, wide)) in enumerate(zip(self.spots, sizes, strict=True), start=1):
            factor = spot.width / wide if spot.width else spot.height / tall if spot.height else 1.0
            height, width = max(1, round(tall * factor)), max(1, round(wide * factor))
            if not (0 <= spot.top <= canvas[0] - height and 0 <= spot.left <= canvas[1] - width):
                raise ValueError(
                    f"product {number} of the layout takes {width} x {height} pixels at left {spot.left}, top "
                    f"{spot.top}, which is not all on the canvas of {canvas[1]} x {canvas[0]}"
                )
            placed.append(Rectangle(spot.top, spot.left, height, width))
        return placed


@dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """A photograph that stays as it is, its background, too; what is round it is generated."""

    anchor: tuple[float, float]
    scale: float | None  # as of Group

    def place(self, canvas: Size, sizes: Sequence[Size]) -> list[Rectangle]:
        """Return the box of the photograph; ValueError in one sentence if it does not fit, or covers the canvas."""
        if len(sizes) != 1:
            raise ValueError(f"{len(sizes)} products were given, but one photograph is kept: give one")
        factor = 1.0 if self.scale is None else self.scale * min(canvas[0] / sizes[0][0], canvas[1] / sizes[0][1])
        box = _scale_size(sizes[0], factor)
        if box == canvas:
            raise ValueError("the photograph covers the canvas: nothing to generate, give a larger canvas")
        return [Rectangle(*_place_box(canvas, box, self.anchor, 0.0), *box)]


def _scale_size(size: tuple[float, float], factor: float) -> Size:
    return max(1, math.floor(size[0] * factor + 1e-6)), max(1, math.floor(size[1] * factor + 1e-6))


def _fit_rows(
    canvas: Size, sizes: Sequence[tuple[float, float]], rows: Sequence[range], gap: int, scale: float
) -> float:
    """Return the factor by which rows of products take `scale` of the canvas in one direction, and no more in none."""
    tall = sum(max(sizes[place][0] for place in row) for row in rows)
    factors = [(scale * canvas[0] - gap * (len(rows) - 1)) / tall]
    for row in rows:
        factors.append((scale * canvas[1] - gap * (len(row) - 1)) / sum(sizes[place][1] for place in row))
    if min(factors) <= 0:
        raise ValueError(
            f"{len(sizes)} products leave no room between them at scale {scale:g}: give a larger one, or fewer products"
        )
    return min(factors)


def _place_box(canvas: Size, box: Size, anchor: tuple[float, float], margin: float) -> tuple[int, int]:
    """Return top and left of a box; ValueError in one sentence if it is larger than the canvas."""
    if box[0] > canvas[0] or box[1] > canvas[1]:
        raise ValueError(
            f"what stands on the canvas takes {box[1]} x {box[0]} pixels, the canvas has {canvas[1]} x {canvas[0]}: "
            "give a larger canvas, or a scale such as 0.8"
        )
    starts = []
    for side, length, share in zip(canvas, box, anchor, strict=True):
        free = side - length
        edge = min(margin * side, free / 2)
        starts.append(round(edge + share * (free - 2 * edge)))
    return starts[0], starts[1]
