"""The product as a user hands it in: pixels and how much of each is product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.masks.composite import ALPHA_EDGE, ALPHA_FLOOR
from canvas.pins.images import DEFAULT_LIMITS, Pixels
from canvas.pins.masks import Alpha, Mask

FEATHER_SHARE = 1 / 400  # of the shorter side: depth of the band inside a hard mask

NOTHING_MESSAGES = {
    "alpha channel": "the alpha channel is empty",
    "mask": "the mask is empty",
    "segmenter": "the segmenter found no product",
}
EVERYTHING_MESSAGES = {
    "alpha channel": "the alpha channel covers the image",
    "mask": "the mask covers the image",
    "segmenter": "the segmenter took the whole image for product",
}


@dataclass(frozen=True, slots=True)
class Product:
    """An image and its alpha: 1 on the core, whose pixels come back as they are."""

    pixels: Pixels
    alpha: Alpha
    origin: str  # "alpha channel" | "mask" | "segmenter"

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.alpha.shape[0], self.alpha.shape[1]

    @property
    def core(self) -> Mask:
        """Where output equals input, byte for byte."""
        return self.alpha == 1


def build_product(
    image: Image.Image, mask: Image.Image | None = None, segment: Callable[[Image.Image], Alpha] | None = None
) -> Product:
    """Read the product from an RGBA cut-out, from RGB with a mask, or from RGB alone through `segment`.

    Args:
        image: The product image.
        mask: White = product; where it has one colour and its transparency varies: opaque = product.
        segment: Image -> alpha, where there is neither alpha nor mask.

    Raises:
        ValueError: In one sentence, for what cannot be used.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"the product must be a PIL image, not {type(image).__name__}")
    if image.width * image.height > (limit := DEFAULT_LIMITS.max_pixels):
        raise ValueError(f"the product image has {image.width} x {image.height} pixels, the limit is {limit}")
    transparent = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    pixels = np.array(image.convert("RGBA" if transparent else "RGB"))
    if transparent:
        if mask is not None:
            raise ValueError("the product image has an alpha channel and a mask was given too: give one of them")
        product = Product(pixels[..., :3].copy(), pixels[..., 3] / np.float32(255), "alpha channel")
    elif mask is not None:
        if mask.size != image.size:
            raise ValueError(
                f"the mask is {mask.width} x {mask.height}, the product image {image.width} x {image.height}: "
                "they must be of one size"
            )
        values = np.array(_select_mask_channel(mask))
        soft = ((values > 0) & (values < 255)).any()
        product = Product(pixels, values / np.float32(255) if soft else feather_mask(values > 127), "mask")
    elif segment is not None:
        product = Product(pixels, feather_mask(segment(image) >= 0.5), "segmenter")
    else:
        raise ValueError("the product image has neither alpha channel nor mask, and this model has no segmenter")
    _check_product(product)
    return product


def build_masked_product(image: Image.Image, mask: Mask) -> Product:
    """Read the product of a pin: RGB and its mask (H, W), True on the product. Raises as `build_product` does."""
    return build_product(image, Image.fromarray((mask * 255).astype(np.uint8)))


def _select_mask_channel(mask: Image.Image) -> Image.Image:
    """Return its brightness; its alpha where that alone varies."""
    grey = mask.convert("L")
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if len(set(grey.getextrema())) == 1 < len(set(alpha.getextrema())):
            return alpha
    return grey


def _check_product(product: Product) -> None:
    inside = product.alpha >= 0.5
    if not inside.any():
        raise ValueError(f"{NOTHING_MESSAGES[product.origin]}: nothing to keep")
    if inside.all():
        raise ValueError(f"{EVERYTHING_MESSAGES[product.origin]}: nothing to generate")
    if not product.core.any():
        largest = round(255 * float(product.alpha.max()))
        raise ValueError(
            f"the {product.origin} has no fully opaque pixel, the largest is {largest} of 255: no pixel would be kept "
            "as it is, raise the product's to 255 or give RGB with a hard mask"
        )


def feather_mask(mask: Mask) -> Alpha:
    """Return the alpha of a hard mask (H, W): 1 on its core, falling to its edge over FEATHER_SHARE of the shorter
    side, 0 outside.

    Outside lies the old background, so the band is inside. A mask too thin for a core stays hard.
    """
    depth = max(1, round(min(mask.shape) * FEATHER_SHARE))
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")  # a product cut off by the image's edge has no band there
    inwards = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    alpha = np.clip(inwards / (depth + 1), 0, 1).astype(np.float32)
    return alpha if (alpha == 1).any() else mask.astype(np.float32)


def composite_pixels(background: Pixels, product: Product, shift: NDArray[np.float32] | None = None) -> Pixels:
    """Put the product over a background of its size: `canvas.masks.composite.composite_product` in bytes.

    `shift` (H, W) moves the band's blend, as the conditional decoder asks for.
    """
    out = np.where(product.core[..., None], product.pixels, background)
    band = (product.alpha > ALPHA_FLOOR) & ~product.core
    weight = product.alpha[band]
    if shift is not None:
        inner = np.clip(weight, ALPHA_EDGE, 1 - ALPHA_EDGE)
        weight = 1 / (1 + np.exp(-(np.log(inner / (1 - inner)) + shift[band])))
    weight = weight[:, None]
    mixed = weight * product.pixels[band] + (1 - weight) * background[band]
    out[band] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return out
