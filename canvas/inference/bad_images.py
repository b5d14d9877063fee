"""Images that are bad by construction: what a generator must beat, and what a rater must see."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from canvas.inference.conditioning import decode_backgrounds, frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.pins.images import Pixels
from canvas.pins.masks import blend_pixels

BLUR_SHARE = 1 / 12
"""Standard deviation of the blur, as a share of the image's shorter side: no object can be recognized."""


@torch.no_grad()
def paste_product(pipeline: CanvasPipeline, product: Product, other: Image.Image) -> Pixels:
    """Return `product` pasted on another image, of the product image's size.

    The other image goes through the pipeline's autoencoder, so that it is no sharper than what the pipeline generates;
    its light, its perspective and what stands in it do not fit the product.
    """
    height, width = product.size
    pixels = np.array(ImageOps.fit(other.convert("RGB"), (width, height), Image.Resampling.LANCZOS))
    framed = frame_for_pipeline(pipeline, Product(pixels, np.ones((height, width), np.float32), "mask"))
    images = framed.pixels.to(pipeline.device, pipeline.vae.dtype)
    latents = pipeline.vae.encode(images).latent_dist.mode()
    return decode_backgrounds(pipeline, latents, None, framed.frame)[0].composite(product)


def degrade_image(image: Pixels, product: Product) -> Pixels:
    """Return `image` as nobody can like it: blurred to blotches, the lower half of the product cut off."""
    rows = np.flatnonzero((product.alpha >= 0.5).any(axis=1))
    alpha = product.alpha.copy()
    alpha[(rows[0] + rows[-1]) // 2 :] = 0
    blurred = cv2.GaussianBlur(image, (0, 0), max(1.0, min(image.shape[:2]) * BLUR_SHARE))
    return blend_pixels(image, alpha, np.asarray(blurred, np.uint8))
