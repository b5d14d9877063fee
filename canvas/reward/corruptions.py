"""Controlled corruptions of images of products: what was done is known, so judgments of them need no rater.

Images are uint8 [h, w, 3], masks bool [h, w], True is product. Lengths are fractions of the image's shorter side.
`strength` runs from 0, just visible, to 1. A corruption is a function of image, mask, strength and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canvas.masks.simulation import cut_part, dilate_by_disk, erode_by_disk
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask, compute_box

FloatPixels = NDArray[np.float32]  # [h, w, 3], 0..255
CorruptionFunction = Callable[[FloatPixels, Mask, float, np.random.Generator], FloatPixels]

MIN_DETAIL = 3.0
"""Mean change under a blur, of 255, from which a background has detail."""

DEFECTS, FIDELITY, AESTHETICS = "defects", "fidelity", "aesthetics"


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of corruption; questions that it neither hurts nor makes unclear stay as good as they were."""

    apply: CorruptionFunction
    hurts: Set[str]  # questions, of those that raters are asked, whose answer gets worse
    unclear: Set[str] = frozenset()  # questions whose answer is unknown
    needs_texture: bool = False  # shows only where the background is not plain


def corrupt_image(pixels: Pixels, mask: Mask, kind: str, strength: float, seed: int) -> Pixels:
    """Return the image under a corruption.

    Args:
        pixels: The image (H, W, 3).
        mask: Of its product, not empty.
        kind: One of CORRUPTIONS.
        strength: From 0, just visible, to 1.
        seed: Of what the corruption draws.
    """
    assert mask.any(), "nothing is known of an image without a product"
    rng = np.random.default_rng(seed)
    return _quantize_values(CORRUPTIONS[kind].apply(pixels.astype(np.float32), mask, strength, rng))


def soften_background(pixels: Pixels, mask: Mask, sigma: float) -> Pixels:
    """Blur the background by a Gaussian of `sigma` pixels; the product stays."""
    values = pixels.astype(np.float32)
    return _quantize_values(_blend_background(values, mask, _blur_values(values, sigma)))


def replace_background(pixels: Pixels, mask: Mask, scene: Pixels) -> Pixels:
    """Place the product on another image of its size."""
    return _quantize_values(_blend_background(pixels.astype(np.float32), mask, scene.astype(np.float32)))


def has_texture(pixels: Pixels, mask: Mask) -> bool:
    """Whether the background has detail that a blur would take."""
    values, side = pixels.astype(np.float32), min(mask.shape)
    detail = np.abs(values - _blur_values(values, 0.04 * side))[erode_by_disk(~mask, 0.06 * side)]
    return bool(detail.size) and float(detail.mean()) > MIN_DETAIL


# Parts that corruptions are made of


def _quantize_values(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blur_values(values: FloatPixels, sigma: float) -> FloatPixels:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(0.1, sigma)), np.float32)


def _blend_region(
    values: FloatPixels, region: Mask, replacement: NDArray[np.floating], feather: float = 0.008
) -> FloatPixels:
    """Show `replacement` in `region`, its edge soft by `feather`."""
    weight = _blur_values(region.astype(np.float32), feather * min(region.shape))[..., None]
    return np.asarray(values + weight * (np.clip(replacement, 0, 255) - values), np.float32)


def _blend_background(values: FloatPixels, mask: Mask, replacement: NDArray[np.floating]) -> FloatPixels:
    """Show `replacement` round the product, whose inside stays as it is to the bit."""
    return np.where(erode_by_disk(mask, 1)[..., None], values, _blend_region(values, ~mask, replacement))


def _blend_contrast(values: FloatPixels, mask: Mask, region: Mask, amount: float) -> FloatPixels:
    """Make `region` of the background brighter by `amount` where it is dark, darker where it is light."""
    sign = -1.0 if region.any() and values[region].mean() > 128 else 1.0
    return _blend_background(values, mask, _blend_region(values, region, values + sign * amount))


def _fill_hole(values: FloatPixels, hole: Mask) -> FloatPixels:
    """Fill the hole from around it (Telea 2004)."""
    image, inside = _quantize_values(values), dilate_by_disk(hole, 1).astype(np.uint8)
    return cv2.inpaint(image, inside, 3, cv2.INPAINT_TELEA).astype(np.float32)


def _fill_from_nearest(values: FloatPixels, mask: Mask) -> FloatPixels:
    """Return everywhere the colour of the nearest pixel of the mask."""
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.float32)
    colours[labels[mask]] = values[mask]
    return colours[labels]


def _tint_values(values: FloatPixels, angle: float, amount: float) -> FloatPixels:
    """Move colours by `amount` of CIELAB in the direction `angle`, lightness as it was."""
    lab = cv2.cvtColor(np.clip(values, 0, 255) / np.float32(255), cv2.COLOR_RGB2LAB)
    lab[..., 1] += amount * np.cos(angle)
    lab[..., 2] += amount * np.sin(angle)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * np.float32(255)


def _sample_half_plane(mask: Mask, rng: np.random.Generator) -> Mask:
    """Sample the half plane on one side of the product's middle."""
    y, x = np.indices(mask.shape)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.nonzero(mask)
    return np.asarray((x - columns.mean()) * np.cos(angle) + (y - rows.mean()) * np.sin(angle) >= 0)


def _sample_blob(mask: Mask, inside: Mask, share: float, rng: np.random.Generator) -> Mask:
    """Sample an ellipse whose area is `share` of that of `inside`, centred on a pixel of it."""
    rows, columns = np.nonzero(inside if inside.any() else ~inside)
    at = int(rng.integers(len(rows)))
    stretch = rng.uniform(0.6, 1.6)
    radius = np.sqrt(max(share * len(rows), 4) / np.pi)
    axes = max(1, round(radius * stretch)), max(1, round(radius / stretch))
    blob = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(blob, (int(columns[at]), int(rows[at])), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return blob.astype(bool)


def _sample_smooth_noise(mask: Mask, scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sample smooth noise [h, w] of standard deviation 1."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, mask.shape).astype(np.float32), (0, 0), scale * min(mask.shape))
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)


# What happens to the product


def _recolour_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    angle = rng.uniform(0, 2 * np.pi)
    return _blend_region(values, mask, _tint_values(values, angle, 20 + 45 * strength))


def _shift_brightness(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Darken the product, or lighten it where it is dark."""
    amount = 0.3 + 0.4 * strength
    dark = values[mask].mean() < 110
    return _blend_region(values, mask, values + amount * (255 - values) if dark else values * (1 - amount))


def _add_stripes(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    y, x = np.indices(mask.shape)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.07, 0.16) * min(mask.shape)
    wave = np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 6)))
    colour = rng.uniform(-1, 1, 3)
    colour *= (25 + 50 * strength) / np.abs(colour).mean()
    return _blend_region(values, mask, values + wave[..., None] * colour)


def _add_patch(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Replace a part of the product by garbage."""
    spot = mask & _sample_blob(mask, mask, 0.35 + 0.25 * strength, rng)
    size = max(2, round(min(mask.shape) / 16))
    noise = rng.uniform(0, 255, (*(-(-n // size) for n in mask.shape), 3)).astype(np.float32)
    coarse = cv2.resize(noise, None, fx=size, fy=size, interpolation=cv2.INTER_NEAREST)
    return _blend_region(values, spot, 0.25 * values + 0.75 * coarse[: mask.shape[0], : mask.shape[1]])


def _erode_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return _fill_hole(values, mask & ~erode_by_disk(mask, (0.03 + 0.05 * strength) * min(mask.shape)))


def _cut_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Fill a part of the product, cut off along a line; of a product in several parts the nearest follow."""
    lost = mask & ~cut_part(mask, rng)
    reach = step = max(1.0, 0.02 * min(mask.shape))
    while lost.sum() < (0.15 + 0.2 * strength) * mask.sum():
        grown = (lost | mask & dilate_by_disk(lost, reach)) if lost.any() else mask
        reach = (
            step if grown.sum() > lost.sum() else 2 * reach
        )  # nothing more within reach: another part is further off
        lost = grown
    return _fill_hole(values, lost)


def _warp_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    y, x = np.indices(mask.shape)
    reach = (0.05 + 0.06 * strength) * min(mask.shape)
    waves = [_sample_smooth_noise(mask, 0.14, rng) for _ in range(2)]
    across, down = ((axis + reach * wave).astype(np.float32) for axis, wave in zip((x, y), waves, strict=True))
    moved = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shape = cv2.remap(mask.astype(np.float32), across, down, cv2.INTER_LINEAR) >= 0.5
    return _blend_region(_fill_hole(values, mask), shape, np.asarray(moved, np.float32))


def _extend_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Grow the product on one side, its own colours drawn out."""
    grown = dilate_by_disk(mask, (0.09 + 0.09 * strength) * min(mask.shape)) & _sample_half_plane(mask, rng)
    colours = _blur_values(_fill_from_nearest(values, mask), 0.012 * min(mask.shape))
    return _blend_region(values, grown & ~mask, colours)


# What happens beside it


def _add_seam(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Draw a line round the product, brighter or darker than what is there."""
    band = dilate_by_disk(mask, max(1.0, rng.uniform(0.015, 0.035) * min(mask.shape))) & ~mask
    if rng.random() < 0.3:
        band &= _sample_half_plane(mask, rng)
    return _blend_contrast(values, mask, band, 45 + 75 * strength)


def _add_box(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Leave a rectangle of another background round the product."""
    x0, y0, x1, y1 = compute_box(mask)
    margin = round(rng.uniform(0.03, 0.08) * min(mask.shape))
    box = np.zeros_like(mask)
    box[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    box &= ~mask
    return _blend_contrast(values, mask, box, 45 + 75 * strength)


def _add_artefacts(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Put blocks of noise or of one colour into the background."""
    out = values.copy()
    places = np.argwhere(~mask) if not mask.all() else np.argwhere(mask)
    for _ in range(2 + round(3 * strength)):
        size = max(3, round(rng.uniform(0.08, 0.17) * min(mask.shape)))
        top, left = np.clip(places[rng.integers(len(places))] - size // 2, 0, np.array(mask.shape) - size)
        shape = (size, size, 3) if rng.random() < 0.5 else (1, 1, 3)
        out[top : top + size, left : left + size] = rng.uniform(0, 255, shape)
    return _blend_background(values, mask, out)


def _add_scratches(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    out = values.copy()
    for _ in range(3 + round(3 * strength)):
        start, end = (rng.uniform(0, 1, (2, 2)) * mask.shape[::-1]).astype(int).tolist()
        colour = (rng.choice([20.0, 235.0]) + rng.uniform(-20, 20, 3)).tolist()
        cv2.line(out, start, end, colour, max(1, round(0.02 * min(mask.shape))))
    return _blend_background(values, mask, out)


def _duplicate_product(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Show the product once more, beside itself."""
    x0, y0, x1, y1 = compute_box(mask)
    span = np.array([x1 - x0, y1 - y0])
    angle = rng.uniform(0, 2 * np.pi)
    offset = np.array([np.cos(angle), np.sin(angle)]) * span * rng.uniform(0.5, 0.8)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    size = mask.shape[::-1]
    ghost = cv2.warpAffine(values, move, size)
    there = cv2.warpAffine(mask.astype(np.float32), move, size)[..., None] * (0.6 + 0.4 * strength)
    return _blend_background(values, mask, there * ghost + (1 - there) * values)


def _add_blotches(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    """Put spots of wrong colours into the background."""
    out = values
    for _ in range(2 + round(2 * strength)):
        spot = _sample_blob(mask, ~mask, 0.06, rng)
        out = _blend_region(out, spot, _tint_values(out, rng.uniform(0, 2 * np.pi), 45 + 35 * strength), feather=0.02)
    return _blend_background(values, mask, out)


# What happens to the background as a whole


def _blur_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return _blend_background(values, mask, _blur_values(values, (0.035 + 0.06 * strength) * min(mask.shape)))


def _pixelate_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    cells = max(2, round(min(mask.shape) * (0.07 + 0.07 * strength)))
    small = cv2.resize(values, [max(1, n // cells) for n in mask.shape[::-1]], interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return _blend_background(values, mask, np.asarray(coarse, np.float32))


def _add_grain(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return _blend_background(values, mask, values + rng.normal(0, 18 + 30 * strength, values.shape).astype(np.float32))


def _wash_out_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return _blend_background(values, mask, 215 + (values - 215) * (0.4 - 0.25 * strength))


def _posterize_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    step = 70 + 55 * strength
    return _blend_background(values, mask, np.floor(values / step) * step + step / 2)


def _tint_background(values: FloatPixels, mask: Mask, strength: float, rng: np.random.Generator) -> FloatPixels:
    return _blend_background(values, mask, _tint_values(values, rng.uniform(0, 2 * np.pi), 40 + 40 * strength))


CORRUPTIONS: Mapping[str, Corruption] = {
    "recoloured": Corruption(_recolour_product, {FIDELITY}, {AESTHETICS}),
    "darkened": Corruption(_shift_brightness, {FIDELITY}, {AESTHETICS}),
    "retextured": Corruption(_add_stripes, {FIDELITY}, {DEFECTS, AESTHETICS}),
    "patched": Corruption(_add_patch, {FIDELITY, DEFECTS}, {AESTHETICS}),
    "eroded": Corruption(_erode_product, {FIDELITY}, {DEFECTS, AESTHETICS}),
    "cut": Corruption(_cut_product, {FIDELITY, DEFECTS}, {AESTHETICS}),
    "warped": Corruption(_warp_product, {FIDELITY}, {DEFECTS, AESTHETICS}),
    "extended": Corruption(_extend_product, {FIDELITY, DEFECTS}, {AESTHETICS}),
    "seam": Corruption(_add_seam, {DEFECTS}, {AESTHETICS}),
    "boxed": Corruption(_add_box, {DEFECTS}, {AESTHETICS}),
    "artefacts": Corruption(_add_artefacts, {DEFECTS}, {AESTHETICS}),
    "scratched": Corruption(_add_scratches, {DEFECTS}, {AESTHETICS}),
    "duplicated": Corruption(_duplicate_product, {DEFECTS}, {AESTHETICS}),
    "blotched": Corruption(_add_blotches, {DEFECTS}, {AESTHETICS}),
    "blurred": Corruption(_blur_background, {AESTHETICS}, needs_texture=True),
    "pixelated": Corruption(_pixelate_background, {AESTHETICS}, {DEFECTS}, needs_texture=True),
    "grainy": Corruption(_add_grain, {AESTHETICS}, {DEFECTS}),
    "washed": Corruption(_wash_out_background, {AESTHETICS}, needs_texture=True),
    "posterised": Corruption(_posterize_background, {AESTHETICS}, {DEFECTS}, needs_texture=True),
    "cast": Corruption(_tint_background, {AESTHETICS}, {DEFECTS}),
}
"""Every kind by name."""
