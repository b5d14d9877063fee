"""A layout as users give it, in words or as JSON, checked once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canvas.layout.arrangement import ANCHORS, Arrangement, Extension, Group, Kind, Spot, Spots
from canvas.layout.formats import Rectangle, parse_canvas
from canvas.pins.frames import Size
from canvas.pins.images import DEFAULT_LIMITS

KEEP = "keep"
"""The place of a photograph that stays as it is; "keep-bottom" and the like say where."""
MAX_PRODUCTS = 12
MAX_LAYOUT_CHARACTERS = 100_000
MAX_COORDINATE = 1_000_000
SPOT_KEYS = ("left", "top", "width", "height", "floats")


@dataclass(frozen=True, slots=True)
class Layout:
    """A canvas and where things stand on it."""

    canvas: Size  # height, width
    arrangement: Arrangement
    words: Mapping[str, Any]  # what `build_layout` made it of, as JSON holds it

    @property
    def keeps_photograph(self) -> bool:
        """Tell whether the image stays whole, and only what is round it is generated."""
        return isinstance(self.arrangement, Extension)

    @property
    def floating(self) -> tuple[bool, ...]:
        """Whether each product floats, without shadow and reflection; (): none does."""
        return tuple(spot.floats for spot in self.arrangement.spots) if isinstance(self.arrangement, Spots) else ()

    def place(self, sizes: Sequence[Size]) -> list[Rectangle]:
        """Return the box of each product on the canvas, for boxes of `sizes` in their images.

        Raises:
            ValueError: In one sentence, if they do not fit, or are too many.
        """
        check_product_count(len(sizes))
        return self.arrangement.place(self.canvas, sizes)


def build_layout(
    canvas: str | None = None,
    *,
    place: str | None = None,
    scale: float | None = None,
    layout: str | None = None,
    heights: Sequence[float] | None = None,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
) -> Layout:
    """Return the layout of these words.

    Args:
        canvas: "1080x1920", width first, or a name in `canvas.layout.formats.FORMATS`.
        place: "bottom", "center" and the like (ANCHORS); "keep" or "keep-bottom": a photograph that stays whole. None:
            in the middle, several products at the bottom.
        scale: Above 0 to 1: share of the canvas's width or height, whichever is reached first, that the product or
            the group takes. None: no pixel is resized.
        layout: "row", "grid", or JSON with a place for each: {"canvas": "1080x1920", "products": [{"left": 90,
            "top": 700, "width": 400}, ...]}. "floats": true is of a product without shadow and reflection.
        heights: One a product, in any unit.
        max_pixels: Of the canvas, at most.

    Raises:
        ValueError: In one sentence, for what is not understood or does not go together.
    """
    given = {"canvas": canvas, "place": place, "scale": scale, "layout": layout, "heights": heights and list(heights)}
    words = {name: value for name, value in given.items() if value is not None}
    size, arrangement = _read_words(canvas, place, scale, layout, heights, max_pixels)
    return Layout(size, arrangement, words)


def rebuild_layout(words: Any, max_pixels: int = DEFAULT_LIMITS.max_pixels) -> Layout:
    """Return the layout of what an image says of itself; ValueError in one sentence where that is none."""
    kinds: dict[str, Any] = {"canvas": str, "place": str, "layout": str, "scale": int | float, "heights": list}
    if not isinstance(words, dict) or not all(
        name in kinds and isinstance(value, kinds[name]) for name, value in words.items()
    ):
        raise ValueError("what the image says of its layout is not understood")
    if not all(isinstance(height, int | float) for height in words.get("heights", [])):
        raise ValueError("what the image says of its layout is not understood")
    return build_layout(**words, max_pixels=max_pixels)


def _read_words(
    canvas: str | None,
    place: str | None,
    scale: float | None,
    layout: str | None,
    heights: Sequence[float] | None,
    max_pixels: int,
) -> tuple[Size, Arrangement]:
    if layout is not None and layout not in ("row", "grid"):
        words = {"place": place, "scale": scale, "heights": heights}
        if given := [name for name, value in words.items() if value is not None]:
            raise ValueError(f"the layout says where each product stands: leave out {' and '.join(given)}")
        return _read_spots(layout, canvas, max_pixels)
    if canvas is None:
        raise ValueError("a layout needs a canvas: give WIDTHxHEIGHT or the name of a format")
    size = parse_canvas(canvas, max_pixels)
    if scale is not None and not 0 < scale <= 1:  # false for NaN
        raise ValueError(f"the scale is {scale:g}: it must be above 0 and at most 1, a share of the canvas")
    if heights is not None and not all(0 < height < math.inf for height in heights):
        raise ValueError(f"the heights {list(heights)} must be above 0 and finite")
    if place is not None and (place == KEEP or place.startswith(f"{KEEP}-")):
        if layout is not None or heights is not None:
            raise ValueError(f"place is {place}: one photograph is kept, leave out layout and heights")
        return size, Extension(anchor=_find_anchor(place[len(KEEP) + 1 :] or "center", place), scale=scale)
    anchor = _find_anchor(place or ("center" if layout is None else "bottom"), place)
    kind: Kind = "grid" if layout == "grid" else "row"
    group_heights = None if heights is None else tuple(heights)
    return size, Group(kind=kind, anchor=anchor, scale=scale, heights=group_heights)


def check_product_count(count: int) -> None:
    """Raise ValueError for no product and for too many in one scene."""
    if not 1 <= count <= MAX_PRODUCTS:
        raise ValueError(f"{count} products were given for one scene: give 1 to {MAX_PRODUCTS}")


def _find_anchor(name: str, given: str | None) -> tuple[float, float]:
    if name not in ANCHORS:
        raise ValueError(f"the place {given!r} is unknown: use {', '.join(ANCHORS)}, {KEEP} or {KEEP}-bottom")
    return ANCHORS[name]


def _read_spots(text: str, canvas: str | None, max_pixels: int) -> tuple[Size, Arrangement]:
    if len(text) > MAX_LAYOUT_CHARACTERS:
        raise ValueError(f"the layout has more than {MAX_LAYOUT_CHARACTERS} characters: it is none")
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):  # brackets without end
        raise ValueError("the layout is neither row nor grid nor JSON: give one of them") from None
    if not isinstance(read, dict) or not isinstance(read.get("products"), list) or set(read) - {"canvas", "products"}:
        raise ValueError('the layout must be JSON of this form: {"canvas": "1080x1920", "products": [...]}')
    described_canvas = read.get("canvas")
    if (described_canvas is None) == (canvas is None) or not isinstance(described_canvas, str | None):
        raise ValueError("give the size of the canvas once: as text in the layout, or as canvas")
    check_product_count(len(read["products"]))
    spots = tuple(_read_spot(number, spot) for number, spot in enumerate(read["products"], start=1))
    return parse_canvas(described_canvas or canvas or "", max_pixels), Spots(spots)


def _read_spot(number: int, spot: Any) -> Spot:
    if not isinstance(spot, Mapping) or set(spot) - set(SPOT_KEYS) or not {"left", "top"} <= set(spot):
        raise ValueError(
            f"product {number} of the layout needs left and top, and may have width or height and floats, no more"
        )
    if not isinstance(floats := spot.get("floats", False), bool):
        raise ValueError(f"floats of product {number} of the layout is {floats!r}: it must be true or false")
    for name, value in spot.items():
        if name == "floats":
            continue
        least = 0 if name in ("left", "top") else 1
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_COORDINATE:
            raise ValueError(
                f"{name} of product {number} of the layout must be a whole number of pixels, {least} or more"
            )
    if "width" in spot and "height" in spot:
        raise ValueError(f"product {number} of the layout has width and height: give one, the other follows")
    return Spot(left=spot["left"], top=spot["top"], width=spot.get("width"), height=spot.get("height"), floats=floats)
