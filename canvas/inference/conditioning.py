"""The two ends of a generation, for one product or for many at once: what the denoiser is told, and what comes of
its latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from canvas.clip.model import encode_prompts
from canvas.denoiser.sampling import Condition
from canvas.inference.frame import Frame, compute_frame
from canvas.inference.framed_product import FramedProduct
from canvas.inference.product import Product, composite_pixels
from canvas.masks.composite import compute_hole, mask_images
from canvas.pins.frames import build_size_ids
from canvas.pins.images import Pixels, tensor_to_bytes
from canvas.vae.latents import get_latent_scale
from canvas.vae.model import get_scale_factor

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt


def compute_pipeline_frame(pipeline: CanvasPipeline, product: Product) -> Frame:
    """The frame in which the pipeline's denoiser works on `product`."""
    cell = get_scale_factor(pipeline.vae)
    return compute_frame(
        *product.size,
        side=int(pipeline.unet.config["sample_size"]) * cell,
        multiple=cell,
        max_aspect=pipeline.config["max_aspect"],
    )


def build_condition(
    pipeline: CanvasPipeline,
    scene: FramedProduct,
    prompt: str | None,
    negative_prompt: str | None = None,
    style: StylePrompt | None = None,
) -> Condition:
    """What the denoiser is told of one product, prompt (None: as a dropped caption in training) and style."""
    states, pooled = encode_prompts(pipeline.towers, [prompt or ""])
    if prompt is None:
        states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
    negative = (None, None) if negative_prompt is None else encode_prompts(pipeline.towers, [negative_prompt])
    vae = pipeline.vae
    size = scene.frame.height, scene.frame.width
    known = mask_images(scene.pixels, scene.mask)
    return Condition(
        states=states,
        pooled=pooled,
        sizes=torch.tensor([build_size_ids(size, (0, 0), size)], dtype=torch.float32),
        negative_states=negative[0],
        negative_pooled=negative[1],
        hole=compute_hole(scene.mask, get_scale_factor(vae), pipeline.config["hole_inflation"]),
        masked_latents=get_latent_scale(vae).normalize(vae.encode(known.to(vae.dtype)).latent_dist.mode()),
        image_embeddings=None if style is None else style.embeddings[None],
        image_scales=None if style is None else style.scales,
    )


def decode_composites(
    pipeline: CanvasPipeline,
    raw: torch.Tensor,
    features: list[torch.Tensor] | None,
    frame: Frame,
    products: Sequence[Product],
) -> list[Pixels]:
    """Raw latents (N, C, h, w) of one frame as pictures of the products' own sizes, the product's pixels put back.

    `products`: N, whose pixels go on the pictures. `features`: of the conditional decoder, for each or one for all;
    None: the autoencoder's own decoder.
    """
    shifts = np.zeros((len(raw), frame.height, frame.width), np.float32)
    if features is not None:
        decoded, shift = pipeline.decoder.decode(raw.to(pipeline.decoder.dtype), features)
        shifts = shift[:, 0].float().cpu().numpy()
    else:
        decoded = pipeline.vae.decode(raw.to(pipeline.vae.dtype)).sample
    backgrounds = tensor_to_bytes(decoded).permute(0, 2, 3, 1).cpu().numpy()
    return [
        composite_pixels(
            frame.enlarged(background, *product.size),
            product,
            None if features is None else frame.enlarged(shift, *product.size),
        )
        for background, shift, product in zip(backgrounds, shifts, products, strict=True)
    ]
