"""Controlled corruptions of pictures of products: what was done is known, so judgments of them need no rater.

Pictures are uint8 [h, w, 3], masks bool [h, w], True is product. Lengths are fractions of the picture's shorter side.
`strength` runs from 0, just visible, to 1. A corruption is a function of picture, mask, strength and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.masks.errors import cut, dilated, eroded
from canvas.pins.masks import Mask
from canvas.reward.brushes import (
    Values,
    away,
    before,
    behind,
    blob,
    blur,
    filled,
    grid,
    half,
    nearest,
    side,
    smooth,
    tinted,
)

Pixels = NDArray[np.uint8]
Spoil = Callable[[Values, Mask, float, np.random.Generator], Values]

DETAIL = 3.0
"""Mean change under a blur, of 255, from which a background has detail."""

DEFECTS, FIDELITY, AESTHETICS = "defects", "fidelity", "aesthetics"


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind: what it does, and what it says of the questions that raters are asked.

    Questions that are neither hurt nor unclear stay as good as they were.
    """

    spoil: Spoil
    hurts: frozenset[str]
    unclear: frozenset[str]
    needs_texture: bool = False  # shows only where the background is not plain


def corrupted(pixels: Pixels, mask: Mask, kind: str, strength: float, seed: int) -> Pixels:
    """The picture under the corruption `kind`, one of CORRUPTIONS. The mask must not be empty."""
    assert mask.any(), "nothing is known of a picture without a product"
    spoilt = CORRUPTIONS[kind].spoil(pixels.astype(np.float32), mask, strength, np.random.default_rng(seed))
    return np.clip(np.rint(spoilt), 0, 255).astype(np.uint8)


def softened(pixels: Pixels, mask: Mask, sigma: float) -> Pixels:
    """The picture with its background blurred by a Gaussian of `sigma` pixels; the product stays."""
    values = pixels.astype(np.float32)
    return np.clip(np.rint(behind(values, mask, blur(values, sigma))), 0, 255).astype(np.uint8)


def placed(pixels: Pixels, mask: Mask, scene: Pixels) -> Pixels:
    """The product on another picture of its size."""
    return np.clip(np.rint(behind(pixels.astype(np.float32), mask, scene.astype(np.float32))), 0, 255).astype(np.uint8)


def textured(pixels: Pixels, mask: Mask) -> bool:
    """Whether the background has detail that a blur would take."""
    values = pixels.astype(np.float32)
    detail = np.abs(values - blur(values, 0.04 * side(mask)))[eroded(~mask, 0.06 * side(mask))]
    return bool(detail.size) and float(detail.mean()) > DETAIL


# What happens to the product


def _recoloured(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    angle = rng.uniform(0, 2 * np.pi)
    return before(values, mask, tinted(values, angle, 20 + 45 * strength))


def _darkened(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """Or lightened, where it is dark."""
    amount = 0.3 + 0.4 * strength
    dark = values[mask].mean() < 110
    return before(values, mask, values + amount * (255 - values) if dark else values * (1 - amount))


def _retextured(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """With stripes that it had not."""
    y, x = grid(mask)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.07, 0.16) * side(mask)
    wave = np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 6)))
    colour = rng.uniform(-1, 1, 3)
    colour *= (25 + 50 * strength) / np.abs(colour).mean()
    return before(values, mask, values + wave[..., None] * colour)


def _patched(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """A part of it is garbage."""
    spot = mask & blob(mask, mask, 0.35 + 0.25 * strength, rng)
    size = max(2, round(side(mask) / 16))
    noise = rng.uniform(0, 255, (*(-(-n // size) for n in mask.shape), 3)).astype(np.float32)
    coarse = cv2.resize(noise, None, fx=size, fy=size, interpolation=cv2.INTER_NEAREST)[
        : mask.shape[0], : mask.shape[1]
    ]
    return before(values, spot, 0.25 * values + 0.75 * coarse)


def _eroded(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    left = eroded(mask, (0.03 + 0.05 * strength) * side(mask))
    return filled(values, mask & ~left)


def _cut(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    lost = mask & ~cut(mask, rng)
    while lost.sum() < (0.15 + 0.2 * strength) * mask.sum():
        lost |= mask & dilated(lost, max(1.0, 0.02 * side(mask)))
    return filled(values, lost)


def _warped(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    y, x = grid(mask)
    reach = (0.05 + 0.06 * strength) * side(mask)
    waves = [smooth(mask, 0.14, rng) for _ in range(2)]
    across, down = ((axis + reach * wave).astype(np.float32) for axis, wave in zip((x, y), waves, strict=True))
    moved = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shape = cv2.remap(mask.astype(np.float32), across, down, cv2.INTER_LINEAR) >= 0.5
    return before(filled(values, mask), shape, np.asarray(moved, np.float32))


def _extended(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """Grown on one side, its own colours drawn out."""
    grown = dilated(mask, (0.09 + 0.09 * strength) * side(mask)) & half(mask, rng)
    return before(values, grown & ~mask, blur(nearest(values, mask), 0.012 * side(mask)))


# What happens beside it


def _seam(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """A line round the product, brighter or darker than what is there."""
    band = dilated(mask, max(1.0, rng.uniform(0.015, 0.035) * side(mask))) & ~mask
    if rng.random() < 0.3:
        band &= half(mask, rng)
    return behind(values, mask, before(values, band, values + away(values, band) * (45 + 75 * strength)))


def _boxed(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """A rectangle of another background left round the product."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = round(rng.uniform(0.03, 0.08) * side(mask))
    box = np.zeros_like(mask)
    box[max(0, rows[0] - margin) : rows[-1] + margin + 1, max(0, columns[0] - margin) : columns[-1] + margin + 1] = True
    box &= ~mask
    return behind(values, mask, before(values, box, values + away(values, box) * (45 + 75 * strength)))


def _artefacts(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """Blocks of noise or of one colour in the background."""
    out = values.copy()
    places = np.argwhere(~mask) if not mask.all() else np.argwhere(mask)
    for _ in range(2 + round(3 * strength)):
        size = max(3, round(rng.uniform(0.08, 0.17) * side(mask)))
        top, left = np.clip(places[rng.integers(len(places))] - size // 2, 0, np.array(mask.shape) - size)
        shape = (size, size, 3) if rng.random() < 0.5 else (1, 1, 3)
        out[top : top + size, left : left + size] = rng.uniform(0, 255, shape)
    return behind(values, mask, out)


def _scratched(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    out = values.copy()
    for _ in range(3 + round(3 * strength)):
        start, end = (rng.uniform(0, 1, (2, 2)) * mask.shape[::-1]).astype(int).tolist()
        colour = (rng.choice([20.0, 235.0]) + rng.uniform(-20, 20, 3)).tolist()
        cv2.line(out, start, end, colour, max(1, round(0.02 * side(mask))))
    return behind(values, mask, out)


def _duplicated(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """The product once more, beside itself."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    span = np.array([columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1])
    angle = rng.uniform(0, 2 * np.pi)
    offset = np.array([np.cos(angle), np.sin(angle)]) * span * rng.uniform(0.5, 0.8)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    size = mask.shape[::-1]
    ghost = cv2.warpAffine(values, move, size)
    there = cv2.warpAffine(mask.astype(np.float32), move, size)[..., None] * (0.6 + 0.4 * strength)
    return behind(values, mask, there * ghost + (1 - there) * values)


def _blotched(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    """Spots of wrong colours in the background."""
    out = values
    for _ in range(2 + round(2 * strength)):
        spot = blob(mask, ~mask, 0.06, rng)
        out = before(out, spot, tinted(out, rng.uniform(0, 2 * np.pi), 45 + 35 * strength), feather=0.02)
    return behind(values, mask, out)


# What happens to the background as a whole


def _blurred(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    return behind(values, mask, blur(values, (0.035 + 0.06 * strength) * side(mask)))


def _pixelated(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    cells = max(2, round(side(mask) * (0.07 + 0.07 * strength)))
    small = cv2.resize(values, [max(1, n // cells) for n in mask.shape[::-1]], interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return behind(values, mask, np.asarray(coarse, np.float32))


def _grainy(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    return behind(values, mask, values + rng.normal(0, 18 + 30 * strength, values.shape).astype(np.float32))


def _washed(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    return behind(values, mask, 215 + (values - 215) * (0.4 - 0.25 * strength))


def _posterised(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    step = 70 + 55 * strength
    return behind(values, mask, np.floor(values / step) * step + step / 2)


def _cast(values: Values, mask: Mask, strength: float, rng: np.random.Generator) -> Values:
    return behind(values, mask, tinted(values, rng.uniform(0, 2 * np.pi), 40 + 40 * strength))


def _kind(spoil: Spoil, hurts: str, unclear: str = "", *, needs_texture: bool = False) -> Corruption:
    return Corruption(spoil, frozenset(hurts.split()), frozenset(unclear.split()), needs_texture)


CORRUPTIONS: Mapping[str, Corruption] = {
    "recoloured": _kind(_recoloured, FIDELITY, AESTHETICS),
    "darkened": _kind(_darkened, FIDELITY, AESTHETICS),
    "retextured": _kind(_retextured, FIDELITY, "defects aesthetics"),
    "patched": _kind(_patched, "fidelity defects", AESTHETICS),
    "eroded": _kind(_eroded, FIDELITY, "defects aesthetics"),
    "cut": _kind(_cut, "fidelity defects", AESTHETICS),
    "warped": _kind(_warped, FIDELITY, "defects aesthetics"),
    "extended": _kind(_extended, "fidelity defects", AESTHETICS),
    "seam": _kind(_seam, DEFECTS, AESTHETICS),
    "boxed": _kind(_boxed, DEFECTS, AESTHETICS),
    "artefacts": _kind(_artefacts, DEFECTS, AESTHETICS),
    "scratched": _kind(_scratched, DEFECTS, AESTHETICS),
    "duplicated": _kind(_duplicated, DEFECTS, AESTHETICS),
    "blotched": _kind(_blotched, DEFECTS, AESTHETICS),
    "blurred": _kind(_blurred, AESTHETICS, needs_texture=True),
    "pixelated": _kind(_pixelated, AESTHETICS, DEFECTS, needs_texture=True),
    "grainy": _kind(_grainy, AESTHETICS, DEFECTS),
    "washed": _kind(_washed, AESTHETICS, needs_texture=True),
    "posterised": _kind(_posterised, AESTHETICS, DEFECTS, needs_texture=True),
    "cast": _kind(_cast, AESTHETICS, DEFECTS),
}
"""Every kind by name."""
