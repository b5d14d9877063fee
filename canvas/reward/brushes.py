"""Brushes: what corruptions of pictures are painted with.

Values are float32 [h, w, 3] in 0..255, masks bool [h, w]; lengths are fractions of the picture's shorter side.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.masks.errors import dilate_by_disk, erode_by_disk
from canvas.pins.masks import Mask

FloatPixels = NDArray[np.float32]


def get_short_side(mask: Mask) -> int:
    """Pixels of the shorter side."""
    return min(mask.shape)


def build_pixel_grid(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each pixel."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    return rows, columns


def blur_values(values: FloatPixels, sigma: float) -> FloatPixels:
    """Under a Gaussian of `sigma` pixels."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(0.1, sigma)), np.float32)


def blend_region(
    values: FloatPixels, where: Mask, painted: NDArray[np.floating], feather: float = 0.008
) -> FloatPixels:
    """`painted` on `where`, its edge soft by `feather`."""
    weight = blur_values(where.astype(np.float32), feather * get_short_side(where))[..., None]
    return np.asarray(values + weight * (np.clip(painted, 0, 255) - values), np.float32)


def blend_background(values: FloatPixels, mask: Mask, painted: NDArray[np.floating]) -> FloatPixels:
    """`painted` round the product, whose inside stays as it is to the bit."""
    return np.where(erode_by_disk(mask, 1)[..., None], values, blend_region(values, ~mask, painted))


def fill_hole(values: FloatPixels, hole: Mask) -> FloatPixels:
    """The hole filled from around it (Telea 2004)."""
    picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.inpaint(picture, dilate_by_disk(hole, 1).astype(np.uint8), 3, cv2.INPAINT_TELEA).astype(np.float32)


def fill_from_nearest(values: FloatPixels, mask: Mask) -> FloatPixels:
    """Everywhere the colour of the nearest pixel of the mask."""
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.float32)
    colours[labels[mask]] = values[mask]
    return colours[labels]


def tint_values(values: FloatPixels, angle: float, amount: float) -> FloatPixels:
    """Colours moved by `amount` of CIELAB in the direction `angle`, lightness as it was."""
    lab = cv2.cvtColor(np.clip(values, 0, 255) / np.float32(255), cv2.COLOR_RGB2LAB)
    lab[..., 1] += amount * np.cos(angle)
    lab[..., 2] += amount * np.sin(angle)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * np.float32(255)


def choose_contrast_sign(values: FloatPixels, where: Mask) -> float:
    """The sign that takes brightness further from where it is: 1 in the dark, -1 in the light."""
    return -1.0 if where.any() and values[where].mean() > 128 else 1.0


def sample_half_plane(mask: Mask, rng: np.random.Generator) -> Mask:
    """The half plane on one side of the product's middle."""
    y, x = build_pixel_grid(mask)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.nonzero(mask)
    return np.asarray((x - columns.mean()) * np.cos(angle) + (y - rows.mean()) * np.sin(angle) >= 0)


def sample_blob(mask: Mask, inside: Mask, share: float, rng: np.random.Generator) -> Mask:
    """An ellipse whose area is `share` of that of `inside`, centred on a pixel of it."""
    rows, columns = np.nonzero(inside if inside.any() else ~inside)
    at = int(rng.integers(len(rows)))
    stretch = rng.uniform(0.6, 1.6)
    radius = np.sqrt(max(share * len(rows), 4) / np.pi)
    axes = max(1, round(radius * stretch)), max(1, round(radius / stretch))
    painted = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(painted, (int(columns[at]), int(rows[at])), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return painted.astype(bool)


def sample_smooth_noise(mask: Mask, scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise [h, w] of standard deviation 1."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, mask.shape).astype(np.float32), (0, 0), scale * get_short_side(mask))
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)
