"""A shadow as a small map of opacities over a window of an image: how it is cast, and how it is taken off again.

A map holds N x N nodes, the centres of as many equal cells of its window. Between nodes the opacity is interpolated
bilinearly, so no pixel is darkened more than a node says; beyond the window there is no shadow. A background under an
opacity o keeps 1 - o of its sRGB values, as the showroom's shadows are composited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from canvas.pins.images import Pixels, iterate_strips
from canvas.pins.masks import Alpha, Box, Mask

MAX_OPACITY = 0.7
"""At least 0.3 of the background's light stays."""

TIE = 1e-6
"""By which a division is rounded up early: that machines differ in its last digits must not change a level."""

Opacity = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShadowMap:
    """Opacities over a window of an image."""

    levels: NDArray[np.uint8]  # [N, N] opacity in parts of 255, rows from top to bottom
    window: Box

    def scale(self, strength: float) -> ShadowMap:
        """Return the map with opacities times `strength`, 0 to 1."""
        return replace(self, levels=np.rint(self.levels * strength).astype(np.uint8))

    def interpolate(self, rows: range, columns: range) -> Opacity:
        """Return the opacity [h, w] at pixels of the image; 0 beyond the window."""
        left, top, right, bottom = self.window
        nodes = len(self.levels)
        down, across = _compute_weights(rows, top, bottom, nodes), _compute_weights(columns, left, right, nodes)
        return np.asarray(down @ (self.levels / 255) @ across.T)


def _compute_weights(places: range, start: int, stop: int, nodes: int) -> NDArray[np.float64]:
    """Return the weights of the nodes [n, N] at the middles of pixels; none has weight beyond start..stop."""
    middles = np.arange(places.start, places.stop) + 0.5
    along = np.clip((middles - start) / (stop - start) * nodes - 0.5, 0, nodes - 1)
    weights = np.maximum(0, 1 - np.abs(along[:, None] - np.arange(nodes)))
    return np.asarray(weights * ((middles > start) & (middles < stop))[:, None])


def cast_shadows(image: Pixels, shadows: Sequence[ShadowMap], product: Pixels, alpha: Alpha) -> Pixels:
    """Return an image with shadows on the background that shows in it, never on the product's core.

    A pixel of the band keeps its share of product: of image = alpha x product + (1 - alpha) x background the second
    part alone is darkened. Where shadows meet they multiply, up to MAX_OPACITY.

    Args:
        image: [H, W, 3] with the product on it.
        shadows: Of its products.
        product: [H, W, 3] as it was put on the image.
        alpha: [H, W] likewise; 1 on the core.
    """
    cast = image.copy()
    for rows, columns in _iterate_windows(shadows):
        light = np.ones((len(rows), len(columns)))
        for shadow in shadows:
            light *= 1 - shadow.interpolate(rows, columns)
        opacity = np.minimum(1 - light, MAX_OPACITY)[..., None]
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        whole, cover = image[part].astype(np.float64), alpha[part][..., None]
        background = np.clip(whole - cover * product[part], 0, whole)
        darkened = np.rint(whole - opacity * background).astype(np.uint8)
        cast[part] = np.where(cover == 1, image[part], darkened)
    return cast


def compute_remainder(cast: Pixels, shadow: ShadowMap, before: Pixels, core: Mask) -> Pixels:
    """Return what `remove_shadow` needs beside the map, in its window: levels modulo 256, few of them but 0."""
    left, top, right, bottom = shadow.window
    remainder = np.empty((bottom - top, right - left, 3), np.uint8)
    for rows, columns in _iterate_windows([shadow]):
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        remainder[rows.start - top : rows.stop - top] = before[part] - _divide(cast[part], shadow, rows, columns, core)
    return remainder


def remove_shadow(cast: Pixels, shadow: ShadowMap, remainder: Pixels, core: Mask) -> Pixels:
    """Return the image as it was before the shadow was cast, byte for byte.

    Args:
        cast: [H, W, 3] with the shadow.
        shadow: Its map.
        remainder: Of `compute_remainder`: what rounding and the band of the product lost.
        core: [H, W] of the product, on which there is no shadow.
    """
    before = cast.copy()
    top = shadow.window[1]
    for rows, columns in _iterate_windows([shadow]):
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        before[part] = _divide(cast[part], shadow, rows, columns, core) + remainder[rows.start - top : rows.stop - top]
    return before


def measure_darkening(cast: Pixels, shadow: ShadowMap, before: Pixels, core: Mask) -> float:
    """Return by how many levels a pixel is darker than the map makes it, or brighter than it was; on the core, where no
    shadow lies, by how many it differs."""
    most = 0.0
    for rows, columns in _iterate_windows([shadow]):
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        opacity = np.where(core[part], 0, shadow.interpolate(rows, columns))[..., None]
        after, whole = cast[part].astype(np.float64), before[part].astype(np.float64)
        most = max(most, float((whole * (1 - opacity) - after).max()), float((after - whole).max()))
    return most


def _divide(cast: Pixels, shadow: ShadowMap, rows: range, columns: range, core: Mask) -> Pixels:
    """Return what the pixels were if the whole of each is background; on the core as they are."""
    on_core = core[rows.start : rows.stop, columns.start : columns.stop]
    light = 1 - np.where(on_core, 0, shadow.interpolate(rows, columns))[..., None]
    light = np.maximum(light, 1 / 256)  # a forged map may leave none
    return np.asarray(np.floor(np.minimum(cast / light, 255) + 0.5 + TIE), np.uint8)


def _iterate_windows(shadows: Sequence[ShadowMap]) -> Iterator[tuple[range, range]]:
    """Yield rows and columns of the box round all windows, in strips; nothing for no shadow."""
    if not shadows:
        return
    sides = np.array([shadow.window for shadow in shadows])
    (left, top), (right, bottom) = sides[:, :2].min(0).tolist(), sides[:, 2:].max(0).tolist()
    for strip in iterate_strips(bottom - top, right - left):
        yield range(top + strip.start, top + strip.stop), range(left, right)
