"""The surroundings of a photograph that is extended: next to it they begin as its mirror image.

A denoiser sees the photograph and goes on with it, but only roughly: another street, another wall. So what lies next to
the photograph is there already, mirrored at its border, and is the less kept the further away it is. The mirror image
is without the product, which would be there twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image

from canvas.inference.conditioning import load_segmenter
from canvas.inference.known_latents import KnownLatents, encode_known
from canvas.inference.scene.borders import fill_smoothly
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Mask, compute_box

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

REACH_SHARE = 0.4
"""Distance from the photograph at which nothing of its mirror image stays, over the frame's shorter side."""
PRODUCT_ALPHA = 0.1
"""Opacity from which a pixel shows the product."""


def know_surroundings(pipeline: CanvasPipeline, photograph: Pixels, is_photograph: Mask) -> KnownLatents:
    """Return what a frame shows before a photograph in it is extended.

    Args:
        pipeline: Whose autoencoder, and whose segmenter, if it has one, are used.
        photograph: (h, w, 3), of the whole frame; what it is beyond the photograph does not matter.
        is_photograph: (h, w), a rectangle.
    """
    left, top, right, bottom = compute_box(is_photograph)
    scene = photograph[top:bottom, left:right]
    segmenter = load_segmenter(pipeline)
    if segmenter is not None:
        (alpha,) = segmenter[0].predict_alphas([Image.fromarray(scene)], segmenter[1])
        scene = remove_product(scene, alpha)
    mirrored = mirror_scene(scene, is_photograph)
    clean = encode_known(pipeline, np.where(is_photograph[..., None], photograph, mirrored))
    away = cv2.distanceTransform((~is_photograph).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = cv2.resize(away, clean.shape[:1:-1], interpolation=cv2.INTER_AREA)
    share = np.clip(share / (REACH_SHARE * min(is_photograph.shape)), 0, 1).astype(np.float32)
    strengths = share**2 * (3 - 2 * share)
    return KnownLatents(clean, torch.from_numpy(strengths)[None, None].to(clean))


def remove_product(scene: Pixels, alpha: Alpha) -> Pixels:
    """Return a scene (h, w, 3) with what surrounds the product, of opacity `alpha` (h, w), in its place."""
    shows = (alpha < PRODUCT_ALPHA).astype(np.float32)
    if not shows.any():
        return scene
    return np.rint(fill_smoothly(scene.astype(np.float32), shows)).astype(np.uint8)


def mirror_scene(scene: Pixels, is_photograph: Mask) -> Pixels:
    """Return a frame with `scene` in the rectangle `is_photograph` (h, w), and its mirror images round it."""
    left, top, right, bottom = compute_box(is_photograph)
    height, width = is_photograph.shape
    sides = (top, height - bottom), (left, width - right), (0, 0)
    return np.pad(scene, sides, mode="symmetric")
