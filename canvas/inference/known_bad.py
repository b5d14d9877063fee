"""Pictures that are known to be bad: what a generator must beat, and what a rater must see."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from canvas.inference.conditioning import compute_pipeline_frame, decode_composites
from canvas.inference.framed_product import frame_product
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.pins.images import Pixels

BLUR_SHARE = 1 / 12
"""Standard deviation of the blur of `spoiled`, of the picture's shorter side: no object is left to see."""


@torch.no_grad()
def paste_product(pipeline: CanvasPipeline, product: Product, other: Image.Image) -> Pixels:
    """`product` on another picture, of its own size.

    The other picture goes through the pipeline's autoencoder, so that it is no sharper than what the pipeline paints;
    its light, its perspective and what stands in it know nothing of the product.
    """
    height, width = product.size
    pixels = np.array(ImageOps.fit(other.convert("RGB"), (width, height), Image.Resampling.LANCZOS))
    frame = compute_pipeline_frame(pipeline, product)
    whole = Product(pixels, np.ones((height, width), np.float32), "mask")
    scene = frame_product(whole, frame, pipeline.device)
    raw = pipeline.vae.encode(scene.pixels.to(pipeline.vae.dtype)).latent_dist.mode()
    return decode_composites(pipeline, raw, None, frame, [product])[0]


def degrade_image(picture: Pixels, product: Product) -> Pixels:
    """`picture` as nobody can like it: blurred to blotches, the lower half of the product cut off."""
    rows = np.flatnonzero((product.alpha >= 0.5).any(axis=1))
    cut = product.alpha.copy()
    cut[(rows[0] + rows[-1]) // 2 :] = 0
    blurred = cv2.GaussianBlur(picture, (0, 0), max(1.0, min(picture.shape[:2]) * BLUR_SHARE))
    weight = cut[..., None]
    return np.clip(np.rint(weight * picture + (1 - weight) * blurred), 0, 255).astype(np.uint8)
