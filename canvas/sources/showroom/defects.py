"""Planted defects of images. Each takes a sound image and spoils it; truth follows the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canvas.light.gain import GainGrid, linear_to_srgb, srgb_to_linear
from canvas.pins.images import Pixels, encode_jpeg


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """8-bit sRGB `image` [h, w, 3]; `background` likewise and `alpha` [h, w] where there is a product."""

    image: Pixels
    background: Pixels | None = None
    alpha: Pixels | None = None
    log_gain: GainGrid | None = None  # what the scene's light did to the product, over its box; None: no scene
    shadow: Pixels | None = None  # [h, w] opacity of the product's shadow on the background; None: likewise


def blur_image(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Put the image out of focus: a Gaussian of 2.5 to 4.5 pixels."""
    image = cv2.GaussianBlur(rendered.image, (0, 0), rng.uniform(2.5, 4.5))
    return replace(rendered, image=np.asarray(image, dtype=np.uint8))


def shrink_image(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Reduce to a thumbnail with a short side of 32 to 72 pixels."""
    height, width = rendered.image.shape[:2]
    scale = rng.integers(32, 73) / min(height, width)
    return _map_planes(
        rendered, lambda plane: cv2.resize(plane, (round(width * scale), round(height * scale)), interpolation=3)
    )


def overexpose_image(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Expose until the mean luma is 0.93 to 0.97, at least two stops up: a product on white is near it already."""
    return replace(rendered, image=_expose_image(rendered.image, rng.uniform(0.93, 0.97), (4.0, 400.0)))


def underexpose_image(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Expose until the mean luma is 0.015 to 0.04."""
    return replace(rendered, image=_expose_image(rendered.image, rng.uniform(0.015, 0.04), (1e-4, 1.0)))


def add_text_overlay(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Write a slogan or an address across the image, outlined or on a bar."""
    image = Image.fromarray(rendered.image)
    draw = ImageDraw.Draw(image)
    text = str(rng.choice(_SLOGANS))
    size = 48
    while (font := ImageFont.load_default(size)).getlength(text) > 0.9 * image.width:
        size -= 1
    left = (image.width - font.getlength(text)) / 2
    top = rng.uniform(0.06, 0.8) * image.height
    if rng.random() < 0.5:
        bar = tuple(int(c) for c in rng.integers(0, 90, 3))
        draw.rectangle((0, top - 5, image.width, top + 1.35 * size), fill=bar)
        draw.text((left, top), text, font=font, fill=(255, 255, 255))
    else:
        draw.text((left, top), text, font=font, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    return replace(rendered, image=np.asarray(image))


def make_near_duplicate(rendered: RenderedImage, rng: np.random.Generator) -> RenderedImage:
    """Repeat the image: up to 4 % cropped off each side, resized, up to 8 % darker or brighter. It is brighter only
    where that burns no more than the brightest 5 % of its values."""
    height, width = rendered.image.shape[:2]
    left, right, top, bottom = (rng.uniform(0, 0.04, 4) * (width, width, height, height)).astype(int)
    cropped = _map_planes(rendered, lambda plane: plane[top : height - bottom, left : width - right])
    scale = rng.uniform(0.9, 1.1)
    size = (round(width * scale), round(height * scale))
    resized = _map_planes(cropped, lambda plane: cv2.resize(plane, size, interpolation=cv2.INTER_AREA))
    gain = min(rng.uniform(0.92, 1.08), 252 / np.percentile(rendered.image, 95))
    return replace(resized, image=np.clip(resized.image * gain, 0, 255).round().astype(np.uint8))


def make_broken_bytes(rendered: RenderedImage, rng: np.random.Generator) -> bytes:
    """Return what a failed download leaves: a cut-off JPEG, noise, an error page, or nothing."""
    data = encode_jpeg(Image.fromarray(rendered.image))
    match int(rng.integers(5)):
        case 0:
            return b""
        case 1:
            return rng.bytes(int(rng.integers(200, 4000)))
        case 2:
            return b"<html><head><title>404 Not Found</title></head><body>The image is gone.</body></html>\n"
        case _:
            return data[: int(len(data) * rng.uniform(0.15, 0.7))]


IMAGE_DEFECTS = {
    "blurred": blur_image,
    "tiny": shrink_image,
    "overexposed": overexpose_image,
    "underexposed": underexpose_image,
    "text_overlay": add_text_overlay,
    "near_duplicate": make_near_duplicate,
}
"""The defects that give another image."""

_SLOGANS = (
    "SALE -50%",
    "SHOP NOW",
    "LINK IN BIO",
    "FREE SHIPPING TODAY",
    "BEST PRICE 2026",
    "FOLLOW FOR MORE",
    "www.best-offers.shop",
    "BUY 1 GET 1 FREE",
    "TOP 10 IDEAS",
    "READ MORE BELOW",
)


def _expose_image(image: Pixels, luma: float, gains: tuple[float, float]) -> Pixels:
    """Multiply the image in linear light so that its mean luma comes out at `luma` (bisection on the gain)."""
    linear = srgb_to_linear(image.astype(np.float32) / 255)
    low, high = np.log(gains)
    for _ in range(14):
        middle = (low + high) / 2
        exposed = linear_to_srgb(np.clip(linear * np.float32(np.exp(middle)), 0, 1))
        if exposed.mean() < luma:
            low = middle
        else:
            high = middle
    return (exposed * 255).round().astype(np.uint8)


def _map_planes(rendered: RenderedImage, change: Callable[[Pixels], Any]) -> RenderedImage:
    background = None if rendered.background is None else change(rendered.background)
    return RenderedImage(change(rendered.image), background, None if rendered.alpha is None else change(rendered.alpha))
