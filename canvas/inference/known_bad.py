"""Pictures that are known to be bad: what a generator must beat, and what a rater must see."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from canvas.inference.conditioning import frame_of, pictures_of
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Pixels, Product
from canvas.inference.scene import scene_of

BLUR = 1 / 12
"""Standard deviation of the blur of `spoiled`, of the picture's shorter side: no object is left to see."""


@torch.no_grad()
def pasted(pipeline: CanvasPipeline, product: Product, other: Image.Image) -> Pixels:
    """`product` on another picture, of its own size.

    The other picture goes through the pipeline's autoencoder, so that it is no sharper than what the pipeline paints;
    its light, its perspective and what stands in it know nothing of the product.
    """
    height, width = product.size
    pixels = np.array(ImageOps.fit(other.convert("RGB"), (width, height), Image.Resampling.LANCZOS))
    frame = frame_of(pipeline, product)
    whole = Product(pixels, np.ones((height, width), np.float32), "mask")
    scene = scene_of(whole, frame, pipeline.device)
    raw = pipeline.vae.encode(scene.pixels.to(pipeline.vae.dtype)).latent_dist.mode()
    return pictures_of(pipeline, raw, None, frame, [product])[0]


def spoiled(picture: Pixels, product: Product) -> Pixels:
    """`picture` as nobody can like it: blurred to blotches, the lower half of the product cut off."""
    rows = np.flatnonzero((product.alpha >= 0.5).any(axis=1))
    cut = product.alpha.copy()
    cut[(rows[0] + rows[-1]) // 2 :] = 0
    blurred = cv2.GaussianBlur(picture, (0, 0), max(1.0, min(picture.shape[:2]) * BLUR))
    weight = cut[..., None]
    return np.clip(np.rint(weight * picture + (1 - weight) * blurred), 0, 255).astype(np.uint8)
