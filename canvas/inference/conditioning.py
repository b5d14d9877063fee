"""The two ends of a generation, for one product or for many at once: the denoiser's condition, and images of its
latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from canvas.clip.model import encode_prompts
from canvas.denoiser.loading import get_family
from canvas.denoiser.sampling import Condition
from canvas.inference.product import Frame, FramedProduct, Product, composite_pixels, compute_frame, frame_product
from canvas.masks.composite import mask_images
from canvas.pins.frames import build_size_ids
from canvas.pins.images import Pixels, tensor_to_bytes
from canvas.vae.model import get_latent_scale, get_scale_factor

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt


def frame_for_pipeline(pipeline: CanvasPipeline, product: Product) -> FramedProduct:
    """Return `product`, on the CPU, in the frame in which the pipeline's denoiser works on it."""
    cell = get_scale_factor(pipeline.vae)
    side = pipeline.config["frame_side"] or int(pipeline.denoiser.config["sample_size"]) * cell
    multiple = cell * get_family(pipeline.denoiser).patch
    frame = compute_frame(*product.size, side=side, multiple=multiple, max_aspect=pipeline.config["max_aspect"])
    return frame_product(product, frame)


def build_condition(
    pipeline: CanvasPipeline,
    framed: FramedProduct,
    prompt: str | None,
    negative_prompt: str | None = None,
    style: StylePrompt | None = None,
) -> Condition:
    """Return the condition of one product, prompt (None: as a dropped caption in training) and style."""
    states, pooled = encode_prompts(pipeline.towers, [prompt or ""])
    if prompt is None:
        states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
    negative = (None, None) if negative_prompt is None else encode_prompts(pipeline.towers, [negative_prompt])
    vae, family = pipeline.vae, get_family(pipeline.denoiser)
    size = framed.frame.height, framed.frame.width
    masked = mask_images(framed.pixels, framed.mask)
    return Condition(
        states=states,
        pooled=pooled,
        sizes=torch.tensor([build_size_ids(size, (0, 0), size)], dtype=torch.float32),
        negative_states=negative[0],
        negative_pooled=negative[1],
        hole=family.compute_hole(framed.mask, get_scale_factor(vae), pipeline.config["hole_inflation"]),
        masked_latents=get_latent_scale(vae).normalize(vae.encode(masked.to(vae.dtype)).latent_dist.mode()),
        image_embeddings=None if style is None else style.embeddings[None],
        image_scales=None if style is None else style.scales,
    )


def decode_composites(
    pipeline: CanvasPipeline,
    latents: torch.Tensor,
    features: list[torch.Tensor] | None,
    frame: Frame,
    products: Sequence[Product],
) -> list[Pixels]:
    """Decode raw latents (N, C, h, w) of one frame to images of the sizes of `products`, with their pixels on them.
    `features`: of the conditional decoder, for each or one for all; None: the autoencoder's own decoder.

    ValueError if the latents or the images are not finite.
    """
    check_finite(latents, "the denoiser")
    shifts = None
    if features is not None:
        decoded, shift = pipeline.decoder.decode(latents.to(pipeline.decoder.dtype), features)
        shifts = shift[:, 0].float().cpu().numpy()
    else:
        decoded = pipeline.vae.decode(latents.to(pipeline.vae.dtype)).sample
    check_finite(decoded, "the autoencoder" if features is None else "the conditional decoder")
    backgrounds = tensor_to_bytes(decoded).permute(0, 2, 3, 1).cpu().numpy()
    return [
        composite_pixels(
            frame.extract_product(background, *product.size),
            product,
            None if shifts is None else frame.extract_product(shifts[place], *product.size),
        )
        for place, (background, product) in enumerate(zip(backgrounds, products, strict=True))
    ]


def check_finite(values: torch.Tensor, source: str) -> None:
    """Raise ValueError, naming what gave them, if any of `values` is NaN or infinite: as an image they would be a black
    square."""
    if not torch.isfinite(values).all():
        share = 1 - torch.isfinite(values).float().mean().item()
        raise ValueError(
            f"{source} gave NaN or infinity in {share:.0%} of its numbers: its weights are damaged, or they need a "
            "wider number format (--precision fp32)"
        )
