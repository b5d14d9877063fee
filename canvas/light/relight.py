"""A predicted gain made lawful, put on a product, and certified."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.light.band import check_band
from canvas.light.certificate import Certificate, digest_image
from canvas.light.gain import GainGrid, apply_gain
from canvas.light.laws import LIMITS, check_grid, check_pixels, limit_clipping, make_lawful
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
    """
    window = image.crop((left, top, left + original.width, top + original.height))
    shown, pixels = np.asarray(window), np.asarray(original.convert("RGB"))
    checks = (*check_grid(grid), *check_pixels(shown, pixels, core, grid, compute_box(core)))
    if band is not None:
        checks += tuple(check_band(core, band, handed_in))
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
        limits=LIMITS,
        checks=checks,
    )
