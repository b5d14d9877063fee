"""A cut-out mended where it is uncertain: a band along the edge of its mask.

There the photograph says how much of a pixel is product: as much as its colour has gone from the old background's to
the product's. What was cut off comes back, what was left over goes, and the band's colours are the product's alone, so
that no fringe of the old background stays. Beyond the band nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.light.band import compute_reach
from canvas.masks.composite import ALPHA_FLOOR
from canvas.masks.foreground import Colours, estimate_foreground, spread_colours
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Box, Mask, compute_box

RIM_SHARE = 0.003
"""Share of the image's shorter side: how far from the mask's edge pixels are surely mixed with the background."""
MIN_RIM = 1.5
"""The same in pixels, at least."""
BLUR = 0.5
"""Pixels by which the edge of a hard mask is blurred (sigma): what a straight edge of pixels has on average."""
CONTRAST = 24.0
"""Levels between product and background at which the photograph and the prior count alike, of a doubtful pixel."""
SURE_CONTRAST = 80.0
"""The same of a pixel of the rim which nothing doubts."""
UNEXPLAINED = 128.0
"""Levels by which a colour may be off any mixture of the two before the prior counts alone, nearly."""
SNAP = 0.08
"""Alphas so near to 0 and 1 are these: colours vary as much."""
TILE = 1024
"""Pixels of a side of what is mended at once: memory stays flat."""


def find_uncertain(mask: Mask, mattes: Sequence[Alpha]) -> tuple[Mask, Mask]:
    """Return the rim, whose pixels are mixed whoever drew the mask; and the doubtful pixels.

    These are within reach of the mask's edge, and a matte has them on the other side of it; and their neighbours.
    """
    distance, doubtful = _measure_edge_distance(mask), np.zeros_like(mask)
    for matte in mattes:
        doubtful |= (matte >= 0.5) != mask
    doubtful = cv2.dilate(doubtful.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rim = distance <= max(MIN_RIM, RIM_SHARE * min(mask.shape))
    return np.asarray(rim), np.asarray(doubtful & (distance <= compute_reach(mask.shape)))


def _measure_edge_distance(mask: Mask) -> NDArray[np.float32]:
    """Return each pixel's distance to the nearest one on the other side of the mask's edge; neighbours: 1."""
    inside = mask.astype(np.uint8)
    both = (cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (inside, 1 - inside))
    return np.asarray(np.maximum(*both), np.float32)


def mend_matte(pixels: Pixels, mask: Mask, mattes: Sequence[Alpha]) -> Alpha | None:
    """Return how much of each pixel is product, which changes where the mask is uncertain alone.

    None: the mask is all rim, so that nothing tells the product's colours from the background's.

    Args:
        pixels: The photograph, its old background included.
        mask: What is thought to be product.
        mattes: What a segmenter sees in several views of the image; none: the rim alone is uncertain.
    """
    rim, doubtful = find_uncertain(mask, mattes)
    uncertain = rim | doubtful
    certain, outside = mask & ~uncertain, ~mask & ~uncertain
    if not (certain.any() and outside.any()):
        return None
    prior = _blur_edge(mask)
    alpha, needed = mask.astype(np.float32), np.where(doubtful, np.float32(CONTRAST), np.float32(SURE_CONTRAST))
    for inner, window in _iterate_tiles(uncertain, 4 * compute_reach(mask.shape)):
        if certain[window].any() and outside[window].any():
            part = pixels[window].astype(np.float32)
            measured = _measure_alpha(part, certain[window], outside[window], prior[window], needed[window])
            alpha[inner] = np.where(uncertain[inner], _cut(measured, window, inner), alpha[inner])
    return _narrow_band(_drop_specks(alpha, certain), mask)


def clean_colours(pixels: Pixels, alpha: Alpha) -> Pixels:
    """Return the photograph with the product's colours alone where `alpha` blends them; a copy elsewhere."""
    band, cleaned = (alpha > ALPHA_FLOOR) & (alpha < 1), pixels.copy()
    for inner, window in _iterate_tiles(band, 4 * compute_reach(alpha.shape)):
        colours = _cut(estimate_foreground(pixels[window].astype(np.float32), alpha[window]), window, inner)
        cleaned[inner] = np.where(band[inner][..., None], np.rint(colours), cleaned[inner])
    return cleaned


def _measure_alpha(pixels: Colours, certain: Mask, outside: Mask, prior: Alpha, contrast: NDArray[np.float32]) -> Alpha:
    """Return how far each colour has gone from the background's near it to the product's near it, 0..1.

    Where these two are alike, as told by `contrast`, or do not explain the colour, `prior` counts instead.
    """
    product, background = spread_colours(pixels, certain), spread_colours(pixels, outside)
    way = product - background
    length = (way * way).sum(-1)
    share = np.clip(((pixels - background) * way).sum(-1) / np.maximum(length, 1e-3), 0, 1)
    left = pixels - background - share[..., None] * way
    trust = length / (length + contrast**2) * np.exp(-(left * left).sum(-1) / UNEXPLAINED**2)
    alpha = trust * share + (1 - trust) * prior
    alpha[alpha < SNAP] = 0
    alpha[alpha > 1 - SNAP] = 1
    return np.asarray(alpha, np.float32)


def _blur_edge(mask: Mask) -> Alpha:
    """Return what a hard mask says of the pixels that its edge runs through."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), BLUR))


def _drop_specks(alpha: Alpha, certain: Mask) -> Alpha:
    """Return alpha without the parts that are not connected with what is certainly product."""
    _, labels = cv2.connectedComponents((alpha > 0).astype(np.uint8), connectivity=8)
    return np.where(np.isin(labels, np.unique(labels[certain])), alpha, np.float32(0))


def _narrow_band(alpha: Alpha, mask: Mask) -> Alpha:
    """Return alpha as the mask has it wherever the background is further away than edges are mended on both sides."""
    product = (alpha > ALPHA_FLOOR).astype(np.uint8)
    away = cv2.distanceTransform(product, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where((alpha < 1) & (away > 2 * compute_reach(mask.shape) + 1), mask.astype(np.float32), alpha)


def _iterate_tiles(chosen: Mask, margin: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yield the tiles of the chosen pixels' box that hold some, and each with `margin` pixels around it."""
    if not chosen.any():
        return
    left, top, right, bottom = compute_box(chosen)
    for y in range(top, bottom, TILE):
        for x in range(left, right, TILE):
            tile: Box = (x, y, min(right, x + TILE), min(bottom, y + TILE))
            inner = slice(tile[1], tile[3]), slice(tile[0], tile[2])
            if chosen[inner].any():
                rows = slice(max(0, tile[1] - margin), tile[3] + margin)
                yield inner, (rows, slice(max(0, tile[0] - margin), tile[2] + margin))


def _cut(values: NDArray[np.float32], window: tuple[slice, slice], inner: tuple[slice, slice]) -> NDArray[np.float32]:
    """Return the values of `inner`, of those of `window` round it."""
    top, left = (inner[axis].start - window[axis].start for axis in (0, 1))
    return values[top : top + inner[0].stop - inner[0].start, left : left + inner[1].stop - inner[1].start]
