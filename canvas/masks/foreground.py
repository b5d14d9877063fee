"""A product's own colours at its edge, where its photograph shows them mixed with the old background."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.pins.masks import Alpha, Mask

Colours = NDArray[np.float32]  # [H, W, 3], 0..255

REGULARIZATION = 1e-5
"""Weight with which a pixel's colours are drawn to its neighbours' wherever it lies."""
SMALL_SIDE = 32
"""Pixels of a side up to which a level is relaxed SMALL_ROUNDS times, beyond BIG_ROUNDS times."""
SMALL_ROUNDS = 10
BIG_ROUNDS = 3


def estimate_foreground(pixels: Colours, alpha: Alpha) -> Colours:
    """Return the product's colours [H, W, 3], of pixels that are alpha * product + (1 - alpha) * background.

    Product and background are estimated together, each as smooth as alpha is steep: from one pixel to the full size,
    level by level (Germer et al. 2020, "Fast Multi-Level Foreground Estimation", eq. 4 and algorithm 1; the sweeps are
    Jacobi's, which numpy does at once, in place of Gauss and Seidel's). Where alpha is 1 the pixels come back.
    """
    height, width = alpha.shape
    levels = max(1, math.ceil(math.log2(max(height, width))))
    sizes = [(round(width ** (level / levels)), round(height ** (level / levels))) for level in range(levels + 1)]
    product, background = (_average_colour(pixels, alpha > 0.9), _average_colour(pixels, alpha < 0.1))
    for size in sizes:
        image, opacity, product, background = (
            np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST), np.float32).reshape(
                size[1], size[0], -1
            )
            for plane in (pixels, alpha, product, background)
        )
        for _ in range(SMALL_ROUNDS if max(size) <= SMALL_SIDE else BIG_ROUNDS):
            product, background = _relax(image, opacity, product, background)
    return np.where(alpha[..., None] == 1, pixels, product)


def spread_colours(pixels: Colours, is_source: Mask) -> Colours:
    """Return an image whose pixels that are not `is_source` take the colours of those near them that are, by push and
    pull (Gortler et al. 1996, section 4.5). At least one is."""
    weight = is_source[..., None].astype(np.float32)
    stack = [np.concatenate([pixels * weight, weight], axis=-1)]
    while max(stack[-1].shape[:2]) > 1:
        stack.append(cv2.pyrDown(stack[-1]))
    spread = stack[-1][..., :3] / np.maximum(stack[-1][..., 3:], 1e-8)
    for _, finer in pairwise(reversed(stack)):
        coarse = cv2.pyrUp(spread, dstsize=(2 * spread.shape[1], 2 * spread.shape[0]))[: len(finer), : finer.shape[1]]
        share = np.minimum(finer[..., 3:] * 2, 1)
        spread = share * finer[..., :3] / np.maximum(finer[..., 3:], 1e-8) + (1 - share) * coarse
    return np.asarray(np.where(is_source[..., None], pixels, spread), np.float32)


def _average_colour(pixels: Colours, chosen: Mask) -> Colours:
    mean = pixels[chosen].mean(0) if chosen.any() else pixels.mean((0, 1))
    return np.asarray(mean, np.float32).reshape(1, 1, 3)


def _relax(image: Colours, alpha: Alpha, product: Colours, background: Colours) -> tuple[Colours, Colours]:
    """Solve each pixel's two colours, its neighbours' being what they are (Germer et al. 2020, eq. 4)."""
    rest = 1 - alpha
    diagonal, other, mixed = alpha * alpha, rest * rest, alpha * rest
    towards_product, towards_background = alpha * image, rest * image
    for rows, columns in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        weight = REGULARIZATION + np.abs(alpha - _shift(alpha, rows, columns))
        diagonal, other = diagonal + weight, other + weight
        towards_product = towards_product + weight * _shift(product, rows, columns)
        towards_background = towards_background + weight * _shift(background, rows, columns)
    determinant = diagonal * other - mixed * mixed
    solved = (
        (other * towards_product - mixed * towards_background) / determinant,
        (diagonal * towards_background - mixed * towards_product) / determinant,
    )
    return np.clip(solved[0], 0, 255), np.clip(solved[1], 0, 255)


def _shift(plane: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return what lies `rows` below and `columns` to the right of each pixel; beyond the border the border."""
    height, width = plane.shape[:2]
    down = np.clip(np.arange(height) + rows, 0, height - 1)
    right = np.clip(np.arange(width) + columns, 0, width - 1)
    return plane[down][:, right] if columns else plane[down]
