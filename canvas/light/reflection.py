"""A product mirrored on a glossy floor: its own pixels, upside down below the line on which it stands.

This is the "wet floor" effect of product pages, with two things that a polished floor does. It reflects only a share of
the light (Fresnel), here the strength, and what is further above it is seen less and less sharp, for no floor is
perfectly smooth. No network is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.light.gain import FloatPixels
from canvas.light.shadow.spec import check_strength
from canvas.pins.images import Pixels, iterate_strips
from canvas.pins.masks import Alpha, Mask, compute_box

REACH_SHARE = 0.35
"""How far below its base a product is reflected, over its height."""
FADE_POWER = 1.5
"""Exponent of 1 less the distance from the base over the reach: the reflection fades quickly at first, and ends
without a line."""
BLUR_SHARE = 0.02
"""Pixels to each side over which the reflection is averaged, twice, at the end of its reach, over the product's
height."""
BLUR_LEVELS = (0.0, 0.3, 1.0)
"""Places, over the reach, at which the mirror image is blurred by such a share of the most; between two it is mixed."""
BASE_SHARE = 0.1
"""How far above its lowest row a product may stand, over its height: the base of a mug curves up to its sides."""
BASE_SLOPE = 0.5
"""Rows a column by which the base may rise: walls and handles, which rise faster, do not touch the floor."""
SMOOTH_SHARE = 0.04
"""Pixels to each side over which the base is averaged to the line of the mirror, over the product's height: a notch of
the mask would move all that is mirrored there by twice its depth."""

Base = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Mirror:
    """Where a product is mirrored."""

    base: Base  # [w] first row below the product, of each column
    line: Base  # [w] at which it is mirrored: the base, smoother
    left: int  # column of the first
    reach: float  # pixels
    blur: int  # pixels to each side, at the end of the reach

    def compute_depth(self, rows: range) -> NDArray[np.float64]:
        """Return how far below the line the middles of pixels [h, w] lie, over the reach."""
        return np.asarray((_get_middles(rows) - self.line) / self.reach)


def cast_reflection(
    image: Pixels,
    product: Pixels,
    own: Alpha,
    alpha: Alpha,
    strength: float,
    shaded: Pixels | None = None,
) -> Pixels:
    """Return an image with the reflection of one product on the background below it, never on a product's core.

    A pixel of the band keeps its share of product: of image = alpha x product + (1 - alpha) x background the second
    part alone reflects. A product that reaches the image's last row has no floor below it, and no reflection.

    Args:
        image: [H, W, 3] with all products on it.
        product: [H, W, 3] as they were put on the image.
        own: [H, W], 0 to 1: alpha of the product that is mirrored.
        alpha: [H, W] likewise, of all products; 1 on their cores.
        strength: 0, none, to 1, a mirror.
        shaded: `image` with shadows. They lie on the floor, so the reflection covers them as it covers the floor. None:
            there are none.

    Returns:
        `shaded`, or else `image`, with the reflection.

    Raises:
        ValueError: The strength is not from 0 to 1.
    """
    check_strength("strength", strength, "reflection")
    cast = (image if shaded is None else shaded).copy()
    mask = own >= min(0.5, float(own.max()))
    height, width = mask.shape
    left, top, right, bottom = compute_box(mask)
    if strength == 0 or bottom == height:
        return cast
    reach, blur = REACH_SHARE * (bottom - top), round(BLUR_SHARE * (bottom - top))
    columns = range(max(0, left - 2 * blur), min(width, right + 2 * blur))
    base = find_base(mask[top:bottom, columns.start : columns.stop]) + top
    mirror = _Mirror(base, _smooth_line(base, round(SMOOTH_SHARE * (bottom - top))), columns.start, reach, blur)
    first, last = int(base.min()), min(height, int(np.ceil(bottom + reach)))
    for strip in iterate_strips(last - first, 4 * len(columns)):  # of four layers
        rows = range(first + strip.start, first + strip.stop)
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        layer = strength * _draw_mirrored(mirror, product, own, rows)
        whole, cover = image[part].astype(np.float32), alpha[part][..., None]
        background = np.clip(whole - cover * product[part], 0, whole)
        blended = np.rint(whole - layer[..., 3:] * background + (1 - cover) * layer[..., :3])
        if shaded is not None:  # rounded so that no pixel loses more than its shadow took (laws of shadows)
            blended -= np.floor((1 - layer[..., 3:]) * (whole - shaded[part]))
        cast[part] = np.where(cover == 1, cast[part], np.clip(blended, 0, 255).astype(np.uint8))
    return cast


def find_base(mask: Mask) -> Base:
    """Return the row below which each column of a product's box [h, w] is floor: its own lowest, or where that rises
    faster than a base does, as far up as one may."""
    height, width = mask.shape
    lowest = np.where(mask.any(0), height - np.argmax(mask[::-1], axis=0), -np.inf)
    climb = BASE_SLOPE * np.arange(width)
    onward = np.maximum.accumulate(lowest + climb) - climb
    back = np.maximum.accumulate((lowest - climb)[::-1])[::-1] + climb
    return np.asarray(np.maximum(np.maximum(onward, back), height - BASE_SHARE * height))


def _smooth_line(line: Base, reach: int) -> Base:
    """Return the mean of so many places to each side, [w]."""
    return np.asarray(cv2.blur(line[None], (2 * reach + 1, 1), borderType=cv2.BORDER_REPLICATE)[0])


def _get_middles(rows: range) -> NDArray[np.float64]:
    """Return the middles of rows, [h, 1]."""
    return np.asarray(np.arange(rows.start, rows.stop)[:, None] + 0.5)


def _draw_mirrored(mirror: _Mirror, product: Pixels, own: Alpha, rows: range) -> FloatPixels:
    """Return the mirror image [h, w, 4] of so many rows: pixels times alpha, and alpha; blurred and faded."""
    halo = 2 * mirror.blur
    sharp = _mirror_rows(mirror, product, own, range(rows.start - halo, rows.stop + halo))
    depth = mirror.compute_depth(rows)[..., None]
    drawn = np.zeros((len(rows), *sharp.shape[1:]), np.float32)
    for number, level in enumerate(BLUR_LEVELS):
        side = 2 * round(level * mirror.blur) + 1
        blurred = cv2.blur(cv2.blur(sharp, (side, side)), (side, side))
        weight = np.interp(depth, BLUR_LEVELS, np.eye(len(BLUR_LEVELS))[number])
        drawn += weight * blurred[halo : halo + len(rows)]
    fade = np.clip(1 - np.abs(depth), 0, 1) ** FADE_POWER * (_get_middles(rows) >= mirror.base)[..., None]
    return np.asarray(fade * drawn, np.float32)


def _mirror_rows(mirror: _Mirror, product: Pixels, own: Alpha, rows: range) -> FloatPixels:
    """Return the product [h, w, 4], alpha and pixels times it, mirrored at the line. Above the line it stands upright,
    and where its base is higher than that its lowest pixels go on, so that neither blur nor base meets a gap."""
    away = np.abs(mirror.compute_depth(rows)) * mirror.reach
    places = np.clip(np.minimum(mirror.line - away, mirror.base - 0.5) - 0.5, 0, own.shape[0] - 2)
    upper = places.astype(np.int64)
    first, last = int(upper.min()), int(upper.max()) + 2
    part = slice(first, last), slice(mirror.left, mirror.left + len(mirror.base))
    opacity = own[part][..., None]
    layers = np.concatenate([opacity * product[part], opacity], axis=-1)
    columns, share = np.arange(len(mirror.base)), (places - upper)[..., None].astype(np.float32)
    return np.asarray((1 - share) * layers[upper - first, columns] + share * layers[upper - first + 1, columns])
