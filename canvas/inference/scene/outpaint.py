"""A long canvas, window after window (canvas.layout.windows): the first is generated as every image is, each further
one goes on from what is there.

What is there counts as product but for its last band, so it stays as it is; in the band old and new are blended, as the
conditional decoder blends a product's edge. The further windows follow the background's words alone and noise of their
own, so that neither the product nor the scene is begun again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.denoiser.sampling import Condition, LatentSampler, OnStep, sample_noise
from canvas.inference.close_up import upscale_backgrounds
from canvas.inference.conditioning import (
    decode_backgrounds,
    encode_decoder_condition,
    encode_kept_pixels,
    frame_for_pipeline,
)
from canvas.inference.product import Product
from canvas.layout.compose import BAND_SHARE, fade_ends
from canvas.layout.formats import Rectangle
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Mask

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline


def crop_product(product: Product, window: Rectangle) -> Product:
    """Return the part of a canvas that a window shows."""
    return Product(product.pixels[window.region], product.alpha[window.region], product.origin)


def extend_images(
    pipeline: CanvasPipeline,
    sampler: LatentSampler,
    conditions: tuple[Condition, Condition],
    noise: torch.Tensor,
    images: Sequence[Pixels],
    product: Product,
    windows: Sequence[Rectangle],
    *,
    upscale: int | None = None,
    on_step: OnStep | None = None,
) -> list[Pixels]:
    """Return whole canvases from images of their first window.

    Args:
        pipeline: Whose parts are used.
        sampler: Of its denoiser.
        conditions: Text and style of windows in which a product appears, and of those without.
        noise: Unit noise (N, C, h, w) of the first window.
        images: N, of the first window, with the product on them.
        product: Of the whole canvas.
        windows: In the order in which they are generated, the first one, too.
        upscale: As the pipeline takes it.
        on_step: As the sampler takes it.
    """
    canvases = [np.zeros((*product.size, 3), np.uint8) for _ in images]
    for canvas, image in zip(canvases, images, strict=True):
        canvas[windows[0].region] = image
    filled = np.zeros(product.size, bool)
    filled[windows[0].region] = True
    for number, window in enumerate(windows[1:], start=1):
        is_filled = filled[window.region].copy()
        alpha = np.maximum(_fade_filled(is_filled), product.alpha[window.region])
        has_product = bool((product.alpha[window.region][~is_filled] > 0).any())
        kept = [
            Product(np.where(is_filled[..., None], canvas[window.region], product.pixels[window.region]), alpha, "mask")
            for canvas in canvases
        ]
        filled[window.region] = True
        if (alpha == 1).all():  # a photograph that is longer than a window
            for canvas, member in zip(canvases, kept, strict=True):
                canvas[window.region] = member.pixels
            continue
        framed = [frame_for_pipeline(pipeline, member).to(pipeline.device) for member in kept]
        holes, latents = zip(*(encode_kept_pixels(pipeline, member) for member in framed), strict=True)
        condition = replace(
            conditions[0 if has_product else 1], hole=torch.cat(holes), masked_latents=torch.cat(latents)
        )
        sampled = sampler.sample(_draw_noise(noise, number), condition, on_step=on_step)
        features = encode_decoder_condition(pipeline, framed)
        backgrounds = decode_backgrounds(pipeline, sampled, features, framed[0].frame)
        large = upscale_backgrounds(pipeline, backgrounds, kept, upscale)
        for canvas, member, background in zip(canvases, kept, large, strict=True):
            canvas[window.region] = background.composite(member)
    return canvases


def _fade_filled(is_filled: Mask) -> Alpha:
    """Return the alpha of what is there, whole rows or columns: 1, but towards the rest it falls to almost 0."""
    down, across = np.asarray(is_filled.any(axis=1)), np.asarray(is_filled.any(axis=0))
    depth = max(1, round(BAND_SHARE * min(is_filled.shape)))
    return np.minimum.outer(_fade_line(down, depth), _fade_line(across, depth))


def _fade_line(is_filled: NDArray[np.bool_], depth: int) -> NDArray[np.float32]:
    places = np.flatnonzero(is_filled)
    first, last = int(places[0]), int(places[-1]) + 1
    line = np.zeros(len(is_filled), np.float32)
    line[first:last] = fade_ends(last - first, depth, first > 0, last < len(is_filled))
    return line


def _draw_noise(noise: torch.Tensor, window: int) -> torch.Tensor:
    """Return unit noise like `noise` (N, C, h, w) for another window, a function of each image's own noise."""
    seeds = []
    for image_noise in noise:
        digest = hashlib.blake2b(
            image_noise.float().cpu().numpy().tobytes(), digest_size=8, person=f"window {window}".encode()
        )
        seeds.append(int.from_bytes(digest.digest(), "big"))
    return sample_noise(noise.shape[1:], seeds, noise.device).to(noise)
