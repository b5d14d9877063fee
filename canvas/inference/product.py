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
        return _check_product(Product(pixels[..., :3].copy(), _scale_to_unit(pixels[..., 3]), "alpha channel"))
    if mask is not None:
        if mask.size != image.size:
            raise ValueError(
                f"the mask is {mask.width} x {mask.height}, the product image {image.width} x {image.height}: "
                "they must be of one size"
            )
        values = np.array(_select_mask_channel(mask))
        soft = bool(((values > 0) & (values < 255)).any())
        return _check_product(Product(pixels, _scale_to_unit(values) if soft else feather_mask(values > 127), "mask"))
    if segment is None:
        raise ValueError("the product image has neither alpha channel nor mask, and this model has no segmenter")
    return _check_product(Product(pixels, feather_mask(segment(image) >= 0.5), "segmenter"))


def build_masked_product(image: Image.Image, mask: Mask) -> Product:
    """Read the product of a pin: RGB and its mask (H, W), True on the product. Raises as `product_of` does."""
    return build_product(image, Image.fromarray((mask * 255).astype(np.uint8)))


def _select_mask_channel(mask: Image.Image) -> Image.Image:
    """Its brightness; its alpha where that alone varies."""
    grey = mask.convert("L")
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if _is_constant(grey) and not _is_constant(alpha):
            return alpha
    return grey


def _is_constant(channel: Image.Image) -> bool:
    return len(set(channel.getextrema())) == 1


def _scale_to_unit(values: NDArray[np.uint8]) -> Alpha:
    return values.astype(np.float32) / np.float32(255)


def _check_product(product: Product) -> Product:
    inside = product.alpha >= 0.5
    made = {"segmenter": "the segmenter found no product", "mask": "the mask is empty"}
    whole = {"segmenter": "the segmenter took the whole picture for product", "mask": "the mask covers the picture"}
    if not inside.any():
        raise ValueError(f"{made.get(product.origin, 'the alpha channel is empty')}: nothing to keep")
    if inside.all():
        raise ValueError(f"{whole.get(product.origin, 'the alpha channel covers the picture')}: nothing to paint")
    if not product.core.any():
        most = round(255 * float(product.alpha.max()))
        raise ValueError(
            f"the {product.origin} has no fully opaque pixel, the largest is {most} of 255: no pixel would be kept as "
            "it is, raise the product's to 255 or give RGB with a hard mask"
        )
    return product


def feather_mask(mask: Mask) -> Alpha:
    """Alpha of a hard mask (H, W): 1 on its core, falling to its edge over FEATHER of the shorter side, 0 outside.

    Outside lies the old background, so the band is inside. A mask too thin for a core stays hard.
    """
    depth = max(1, round(min(mask.shape) * FEATHER_SHARE))
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")  # a product cut off by the picture's edge has no band there
    inwards = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    alpha = np.clip(inwards / (depth + 1), 0, 1).astype(np.float32)
    return alpha if (alpha == 1).any() else mask.astype(np.float32)


def composite_pixels(background: Pixels, product: Product, shift: NDArray[np.float32] | None = None) -> Pixels:
    """The product over a background of its size: `canvas.masks.composite.composite_product` in bytes, band pixels
    alone.

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
