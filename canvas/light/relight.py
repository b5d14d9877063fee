"""A predicted gain made lawful, put on a product, and certified."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.light.band import check_band
from canvas.light.certificate import Certificate, digest_image
from canvas.light.gain import GainGrid, apply_gain
from canvas.light.laws import LIMITS, Check, check_grid, check_pixels, limit_clipping, make_lawful
from canvas.light.reflection import cast_reflection
from canvas.light.shadow.casting import ShadowMap, cast_shadows, remove_shadow
from canvas.light.shadow.laws import SHADOW_LIMITS, check_shadow
from canvas.light.shadow.record import ShadowRecord, record_shadow
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Mask, compute_box


def relight_pixels(pixels: Pixels, alpha: Alpha, predicted: NDArray[np.floating]) -> tuple[Pixels, GainGrid]:
    """Return the product's pixels [H, W, 3] under the lawful gain that is nearest to `predicted`, and that gain.

    Args:
        pixels: Of the original.
        alpha: [H, W]; where it is 1 is the core, whose bounding box the grid covers.
        predicted: Log gains [GRID, GRID, 3], finite.
    """
    core = alpha == 1
    box = compute_box(core)
    grid = limit_clipping(make_lawful(predicted), pixels, core, box)
    return apply_gain(pixels, grid, box, alpha > 0), grid


def cast_recorded_shadow(
    before: Pixels, shadow: ShadowMap, product: Pixels, alpha: Alpha, strength: float, *, reflection: float = 0.0
) -> tuple[Pixels, ShadowRecord]:
    """Return an image with a shadow of `strength` (0 to 1) on its background, and what a certificate holds of that.

    A reflection lies over the shadow. What is left without the shadow is the image with its reflection.

    Args:
        before: [H, W, 3] with the product on it.
        shadow: At its whole strength.
        product: [H, W, 3] as it was put on the image.
        alpha: [H, W] likewise; 1 on the core, which stays as it is.
        strength: 0 to 1.
        reflection: Strength of the product's reflection, 0 to 1.
    """
    scaled = shadow.scale(strength)
    cast = cast_shadows(before, [scaled], product, alpha)
    if reflection > 0:
        cast = cast_reflection(before, product, alpha, alpha, reflection, shaded=cast)
        before = cast_reflection(before, product, alpha, alpha, reflection)
    digest = digest_image(Image.fromarray(before))
    return cast, record_shadow(cast, before, digest, scaled, alpha == 1, strength)


def certify(
    image: Image.Image,
    original: Image.Image,
    core: Mask,
    source: str,
    grid: GainGrid,
    *,
    band: Mask | None = None,
    handed_in: Alpha | None = None,
    left: int = 0,
    top: int = 0,
    shadow: ShadowRecord | None = None,
) -> Certificate:
    """Return the certificate of an image whose product is `original` x `grid`, with every law measured.

    Args:
        image: As it will be saved, RGB.
        original: As it was handed in.
        core: [H, W] of the original.
        source: What said which pixels are product (canvas.inference.product.Product.origin).
        grid: As `relight_pixels` returned it.
        band: [H, W] of the original: where a mended product is blended with the background; None: it was not mended.
        handed_in: The alpha of the product's image or its mask, before it was mended; None: a segmenter gave it.
        left: Of the original within the image, pixels.
        top: Likewise.
        shadow: As `cast_recorded_shadow` returned it; it lies on the image, not on the core.
    """
    window = image.crop((left, top, left + original.width, top + original.height))
    window_pixels, pixels = np.asarray(window), np.asarray(original.convert("RGB"))
    checks = [*check_grid(grid), *check_pixels(window_pixels, pixels, core, grid, compute_box(core))]
    if band is not None:
        checks += check_band(core, band, handed_in)
    limits = dict(LIMITS)
    if shadow is not None:
        checks += check_recorded_shadow(np.asarray(image), shadow, place_core(core, image.size, left, top))[0]
        limits |= SHADOW_LIMITS
    broken = [check.describe() for check in checks if not check.holds]
    assert not broken, f"a lawful gain breaks a law: {broken[0]}"
    return Certificate(
        image_digest=digest_image(image),
        original_digest=digest_image(original),
        core_source=source,
        core=None if source == "alpha channel" else core,
        band=band,
        grid=grid,
        left=left,
        top=top,
        limits=limits,
        checks=tuple(checks),
        shadow=shadow,
    )


def check_recorded_shadow(cast: Pixels, record: ShadowRecord, core: Mask) -> tuple[list[Check], Pixels]:
    """Return what is measured of the shadow on an image [H, W, 3] with its product's `core` [H, W], and the image
    without it."""
    before = remove_shadow(cast, record.shadow, record.remainder, core)
    return check_shadow(cast, before, record.shadow, core), before


def place_core(core: Mask, size: tuple[int, int], left: int, top: int) -> Mask:
    """Return the core [h, w] of an original that lies at `left`, `top` of an image of `size` (width, height)."""
    placed = np.zeros((size[1], size[0]), bool)
    placed[top : top + core.shape[0], left : left + core.shape[1]] = core
    return placed
