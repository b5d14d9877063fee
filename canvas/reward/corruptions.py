"""Controlled corruptions of pictures of products: what was done is known, so judgments of them need no rater.

Pictures are uint8 [h, w, 3], masks bool [h, w], True is product. Lengths are fractions of the picture's shorter side.
`strength` runs from 0, just visible, to 1. A corruption is a function of picture, mask, strength and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from canvas.masks.errors import cut_part, dilate_by_disk, erode_by_disk
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask, compute_box
from canvas.reward.brushes import (
    FloatPixels,
    blend_background,
    blend_region,
    blur_values,
    build_pixel_grid,
    choose_contrast_sign,
    fill_from_nearest,
    fill_hole,
    get_short_side,
    sample_blob,
    sample_half_plane,
    sample_smooth_noise,
    tint_values,
)

CorruptionFunction = Callable[[FloatPixels, Mask, float, np.random.Generator], FloatPixels]

MIN_DETAIL = 3.0
"""Mean change under a blur, of 255, from which a background has detail."""

DEFECTS, FIDELITY, AESTHETICS = "defects", "fidelity", "aesthetics"


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind: what it does, and what it says of the questions that raters are asked.

    Questions that are neither hurt nor unclear stay as good as they were.
    """

    spoil: CorruptionFunction
    hurts: frozenset[str]
    unclear: frozenset[str]
    needs_texture: bool = False  # shows only where the background is not plain


def corrupt_image(pixels: Pixels, mask: Mask, kind: str, strength: float, seed: int) -> Pixels:
    """The picture under the corruption `kind`, one of CORRUPTIONS. The mask must not be empty."""
    assert mask.any(), "nothing is known of a picture without a product"
    spoilt = CORRUPTIONS[kind].spoil(pixels.astype(np.float32), mask, strength, np.random.default_rng(seed))
    return np.clip(np.rint(spoilt), 0, 255).astype(np.uint8)


def soften_background(pixels: Pixels, mask: Mask, sigma: float) -> Pixels:
    """The picture with its background blurred by a Gaussian of `sigma` pixels; the product stays."""
    values = pixels.astype(np.float32)
    return np.clip(np.rint(blend_background(values, mask, blur_values(values, sigma))), 0, 255).astype(np.uint8)


def replace_background(pixels: Pixels, mask: Mask, scene: Pixels) -> Pixels:
    """The product on another picture of its size."""
    return np.clip(np.rint(blend_background(pixels.astype(np.float32), mask, scene.astype(np.float32))), 0, 255).astype(
        np.uint8
    )


def has_texture(pixels: Pixels, mask: Mask) -> bool:
    """Whether the background has detail that a blur would take."""
    values = pixels.astype(np.float32)
    detail = np.abs(values - blur_values(values, 0.04 * get_short_side(mask)))[
        erode_by_disk(~mask, 0.06 * get_short_side(mask))
    ]
    return bool(detail.size) and float(detail.mean()) > MIN_DETAIL


# What happens to the product


def _recolour_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    angle = rng.uniform(0, 2 * np.pi)
    return blend_region(values, mask, tint_values(values, angle, 20 + 45 * strength))


def _shift_brightness(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Or lightened, where it is dark."""
    amount = 0.3 + 0.4 * strength
    dark = values[mask].mean() < 110
    return blend_region(values, mask, values + amount * (255 - values) if dark else values * (1 - amount))


def _add_stripes(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """With stripes that it had not."""
    y, x = build_pixel_grid(mask)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.07, 0.16) * get_short_side(mask)
    wave = np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 6)))
    colour = rng.uniform(-1, 1, 3)
    colour *= (25 + 50 * strength) / np.abs(colour).mean()
    return blend_region(values, mask, values + wave[..., None] * colour)


def _add_patch(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """A part of it is garbage."""
    spot = mask & sample_blob(mask, mask, 0.35 + 0.25 * strength, rng)
    size = max(2, round(get_short_side(mask) / 16))
    noise = rng.uniform(0, 255, (*(-(-n // size) for n in mask.shape), 3)).astype(np.float32)
    coarse = cv2.resize(noise, None, fx=size, fy=size, interpolation=cv2.INTER_NEAREST)[
        : mask.shape[0], : mask.shape[1]
    ]
    return blend_region(values, spot, 0.25 * values + 0.75 * coarse)


def _erode_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    left = erode_by_disk(mask, (0.03 + 0.05 * strength) * get_short_side(mask))
    return fill_hole(values, mask & ~left)


def _cut_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    lost = mask & ~cut_part(mask, rng)
    while lost.sum() < (0.15 + 0.2 * strength) * mask.sum():
        lost |= mask & dilate_by_disk(lost, max(1.0, 0.02 * get_short_side(mask)))
    return fill_hole(values, lost)


def _warp_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    y, x = build_pixel_grid(mask)
    reach = (0.05 + 0.06 * strength) * get_short_side(mask)
    waves = [sample_smooth_noise(mask, 0.14, rng) for _ in range(2)]
    across, down = ((axis + reach * wave).astype(np.float32) for axis, wave in zip((x, y), waves, strict=True))
    moved = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shape = cv2.remap(mask.astype(np.float32), across, down, cv2.INTER_LINEAR) >= 0.5
    return blend_region(fill_hole(values, mask), shape, np.asarray(moved, np.float32))


def _extend_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Grown on one side, its own colours drawn out."""
    grown = dilate_by_disk(mask, (0.09 + 0.09 * strength) * get_short_side(mask)) & sample_half_plane(mask, rng)
    return blend_region(
        values, grown & ~mask, blur_values(fill_from_nearest(values, mask), 0.012 * get_short_side(mask))
    )


# What happens beside it


def _add_seam(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """A line round the product, brighter or darker than what is there."""
    band = dilate_by_disk(mask, max(1.0, rng.uniform(0.015, 0.035) * get_short_side(mask))) & ~mask
    if rng.random() < 0.3:
        band &= sample_half_plane(mask, rng)
    return blend_background(
        values, mask, blend_region(values, band, values + choose_contrast_sign(values, band) * (45 + 75 * strength))
    )


def _add_box(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """A rectangle of another background left round the product."""
    x0, y0, x1, y1 = compute_box(mask)
    margin = round(rng.uniform(0.03, 0.08) * get_short_side(mask))
    box = np.zeros_like(mask)
    box[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    box &= ~mask
    return blend_background(
        values, mask, blend_region(values, box, values + choose_contrast_sign(values, box) * (45 + 75 * strength))
    )


def _add_artefacts(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Blocks of noise or of one colour in the background."""
    out = values.copy()
    places = np.argwhere(~mask) if not mask.all() else np.argwhere(mask)
    for _ in range(2 + round(3 * strength)):
        size = max(3, round(rng.uniform(0.08, 0.17) * get_short_side(mask)))
        top, left = np.clip(places[rng.integers(len(places))] - size // 2, 0, np.array(mask.shape) - size)
        shape = (size, size, 3) if rng.random() < 0.5 else (1, 1, 3)
        out[top : top + size, left : left + size] = rng.uniform(0, 255, shape)
    return blend_background(values, mask, out)


def _add_scratches(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    out = values.copy()
    for _ in range(3 + round(3 * strength)):
        start, end = (rng.uniform(0, 1, (2, 2)) * mask.shape[::-1]).astype(int).tolist()
        colour = (rng.choice([20.0, 235.0]) + rng.uniform(-20, 20, 3)).tolist()
        cv2.line(out, start, end, colour, max(1, round(0.02 * get_short_side(mask))))
    return blend_background(values, mask, out)


def _duplicate_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """The product once more, beside itself."""
    x0, y0, x1, y1 = compute_box(mask)
    span = np.array([x1 - x0, y1 - y0])
    angle = rng.uniform(0, 2 * np.pi)
    offset = np.array([np.cos(angle), np.sin(angle)]) * span * rng.uniform(0.5, 0.8)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    size = mask.shape[::-1]
    ghost = cv2.warpAffine(values, move, size)
    there = cv2.warpAffine(mask.astype(np.float32), move, size)[..., None] * (0.6 + 0.4 * strength)
    return blend_background(values, mask, there * ghost + (1 - there) * values)


def _add_blotches(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Spots of wrong colours in the background."""
    out = values
    for _ in range(2 + round(2 * strength)):
        spot = sample_blob(mask, ~mask, 0.06, rng)
        out = blend_region(out, spot, tint_values(out, rng.uniform(0, 2 * np.pi), 45 + 35 * strength), feather=0.02)
    return blend_background(values, mask, out)


# What happens to the background as a whole


def _blur_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return blend_background(values, mask, blur_values(values, (0.035 + 0.06 * strength) * get_short_side(mask)))


def _pixelate_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    cells = max(2, round(get_short_side(mask) * (0.07 + 0.07 * strength)))
    small = cv2.resize(values, [max(1, n // cells) for n in mask.shape[::-1]], interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return blend_background(values, mask, np.asarray(coarse, np.float32))


def _add_grain(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return blend_background(values, mask, values + rng.normal(0, 18 + 30 * strength, values.shape).astype(np.float32))


def _wash_out_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return blend_background(values, mask, 215 + (values - 215) * (0.4 - 0.25 * strength))


def _posterize_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    step = 70 + 55 * strength
    return blend_background(values, mask, np.floor(values / step) * step + step / 2)


def _tint_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return blend_background(values, mask, tint_values(values, rng.uniform(0, 2 * np.pi), 40 + 40 * strength))


def _build_corruption(
    spoil: CorruptionFunction, hurts: str, unclear: str = "", *, needs_texture: bool = False
) -> Corruption:
    return Corruption(spoil, frozenset(hurts.split()), frozenset(unclear.split()), needs_texture)


CORRUPTIONS: Mapping[str, Corruption] = {
    "recoloured": _build_corruption(_recolour_product, FIDELITY, AESTHETICS),
    "darkened": _build_corruption(_shift_brightness, FIDELITY, AESTHETICS),
    "retextured": _build_corruption(_add_stripes, FIDELITY, "defects aesthetics"),
    "patched": _build_corruption(_add_patch, "fidelity defects", AESTHETICS),
    "eroded": _build_corruption(_erode_product, FIDELITY, "defects aesthetics"),
    "cut": _build_corruption(_cut_product, "fidelity defects", AESTHETICS),
    "warped": _build_corruption(_warp_product, FIDELITY, "defects aesthetics"),
    "extended": _build_corruption(_extend_product, "fidelity defects", AESTHETICS),
    "seam": _build_corruption(_add_seam, DEFECTS, AESTHETICS),
    "boxed": _build_corruption(_add_box, DEFECTS, AESTHETICS),
    "artefacts": _build_corruption(_add_artefacts, DEFECTS, AESTHETICS),
    "scratched": _build_corruption(_add_scratches, DEFECTS, AESTHETICS),
    "duplicated": _build_corruption(_duplicate_product, DEFECTS, AESTHETICS),
    "blotched": _build_corruption(_add_blotches, DEFECTS, AESTHETICS),
    "blurred": _build_corruption(_blur_background, AESTHETICS, needs_texture=True),
    "pixelated": _build_corruption(_pixelate_background, AESTHETICS, DEFECTS, needs_texture=True),
    "grainy": _build_corruption(_add_grain, AESTHETICS, DEFECTS),
    "washed": _build_corruption(_wash_out_background, AESTHETICS, needs_texture=True),
    "posterised": _build_corruption(_posterize_background, AESTHETICS, DEFECTS, needs_texture=True),
    "cast": _build_corruption(_tint_background, AESTHETICS, DEFECTS),
}
"""Every kind by name."""
