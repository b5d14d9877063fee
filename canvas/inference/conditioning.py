"""The two ends of a generation, for one product or for many at once: the denoiser's condition, and backgrounds of its
latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canvas.clip.model import encode_prompts
from canvas.denoiser.loading import get_family
from canvas.denoiser.sampling import Condition
from canvas.inference.product import (
    PHOTOGRAPH,
    Frame,
    FramedProduct,
    Product,
    compute_frame,
    frame_product,
    frame_product_bytes,
    lay_product,
    select_band,
)
from canvas.masks.composite import mask_images
from canvas.pins.frames import build_size_ids
from canvas.pins.images import Pixels, tensor_to_bytes
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.upscaler.loading import AnyUpscaler
from canvas.upscaler.spec import FACTORS
from canvas.upscaler.tiles import enlarge
from canvas.vae.model import get_latent_scale, get_scale_factor

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt


class FrameLimits(TypedDict):
    """Frames that a denoiser works in, as `compute_frame` takes them."""

    side: int
    multiple: int
    max_aspect: float


def load_segmenter(pipeline: CanvasPipeline) -> tuple[Segmenter, EdgeSpec] | None:
    """Return the pipeline's segmenter in eval mode, and how its mattes come to full size; None: it has none."""
    if pipeline.segmenter is None:
        return None
    edges = EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"])
    return Segmenter(pipeline.segmenter, pipeline.segmenter_processor).eval(), edges


def frame_for_pipeline(pipeline: CanvasPipeline, product: Product) -> FramedProduct:
    """Return `product`, on the CPU, in the frame in which the pipeline's denoiser works on it."""
    frame = compute_frame(*product.size, **get_frame_limits(pipeline))
    return frame_product(product, frame)


def get_frame_limits(pipeline: CanvasPipeline) -> FrameLimits:
    """Return what `compute_frame` takes of the pipeline's denoiser."""
    cell = get_scale_factor(pipeline.vae)
    side = pipeline.config["frame_side"] or int(pipeline.denoiser.config["sample_size"]) * cell
    multiple = cell * get_family(pipeline.denoiser).patch
    return {"side": side, "multiple": multiple, "max_aspect": pipeline.config["max_aspect"]}


def build_condition(
    pipeline: CanvasPipeline,
    framed: FramedProduct,
    prompt: str | None,
    negative_prompt: str | None = None,
    style: StylePrompt | None = None,
) -> Condition:
    """Return the denoiser's condition for one product.

    Args:
        pipeline: Whose towers and autoencoder are used.
        framed: The product, on the pipeline's device.
        prompt: None: as a dropped caption in training.
        negative_prompt: None: guidance compares with a dropped caption.
        style: Whose scales count as they are; None: no image embeddings.
    """
    states, pooled = encode_prompts(pipeline.towers, [prompt or ""])
    if prompt is None:
        states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
    negative = (None, None) if negative_prompt is None else encode_prompts(pipeline.towers, [negative_prompt])
    size = framed.frame.height, framed.frame.width
    hole, masked_latents = encode_kept_pixels(pipeline, framed)
    return Condition(
        states=states,
        pooled=pooled,
        sizes=torch.tensor([build_size_ids(size, (0, 0), size)], dtype=torch.float32),
        negative_states=negative[0],
        negative_pooled=negative[1],
        hole=hole,
        masked_latents=masked_latents,
        image_embeddings=None if style is None else style.embeddings[None],
        image_scales=None if style is None else style.scales,
    )


def encode_kept_pixels(pipeline: CanvasPipeline, framed: FramedProduct) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hole (1, 1, h, w) round the pixels that the mask keeps, and their normalised latents (1, C, h, w)."""
    vae = pipeline.vae
    masked = mask_images(framed.pixels, framed.mask).to(vae.dtype)
    return (
        get_family(pipeline.denoiser).compute_hole(
            framed.mask, get_scale_factor(vae), pipeline.config["hole_inflation"]
        ),
        get_latent_scale(vae).normalize(vae.encode(masked).latent_dist.mode()),
    )


def encode_decoder_condition(pipeline: CanvasPipeline, framed: Sequence[FramedProduct]) -> list[torch.Tensor] | None:
    """Return the conditional decoder's features of products in one frame; None: the pipeline has no such decoder."""
    if pipeline.decoder is None:
        return None
    levels = [pipeline.decoder.encode_condition(product.pixels, product.mask, product.alpha) for product in framed]
    return [torch.cat(level) for level in zip(*levels, strict=True)]


@dataclass(frozen=True, slots=True)
class Background:
    """What was generated round a product, at the model's size: it is enlarged when it is needed."""

    frame: Frame
    pixels: Pixels  # (h, w, 3) of the frame
    shift: NDArray[np.float32] | None  # (h, w), of the blend in the product's band; None: its alpha alone blends

    def enlarge_pixels(self, height: int, width: int) -> Pixels:
        """Return a copy of the frame's inner rectangle at height x width."""
        return self.frame.extract_product(self.pixels, height, width)

    def enlarge_shift(self, height: int, width: int) -> NDArray[np.float32] | None:
        """Return the shift of the frame's inner rectangle at height x width."""
        return None if self.shift is None else self.frame.extract_product(self.shift, height, width)

    def upscale(self, upscaler: AnyUpscaler, product: Product, factor: int | None) -> Background:
        """Return it in a larger frame, by a network that sees the product at that size; as it is for factor 1.

        `factor` None: the least of the network's that reaches the product image's size, or its largest.
        """
        if factor is None:
            factor = choose_factor(self.frame, *product.size)
        if factor == 1:
            return self
        frame = self.frame.scale(factor)
        colours, alpha = frame_product_bytes(product, frame)
        if product.origin == PHOTOGRAPH:  # what surrounds it goes on with it, so no background takes its place
            alpha[:] = 0
        pixels = enlarge(upscaler, self.pixels, colours, alpha)
        if self.shift is None:
            return Background(frame, pixels, None)
        shift = cv2.resize(self.shift, (frame.width, frame.height), interpolation=cv2.INTER_CUBIC)
        return Background(frame, pixels, np.asarray(shift, np.float32))

    def composite(self, product: Product) -> Pixels:
        """Return an image of the product image's size, with the product on it, untouched on its core."""
        shift = self.enlarge_shift(*product.size)
        band_shift = None if shift is None else select_band(product, shift)
        del shift  # as large as the image, at four bytes a pixel
        pixels = self.enlarge_pixels(*product.size)
        lay_product(pixels, product, band_shift)
        return pixels


def choose_factor(frame: Frame, height: int, width: int) -> int:
    """Return the least factor of 1, 2 and 4 by which `frame` has the pixels of a product image of height x width; the
    largest, if none has them."""
    enough = (
        factor
        for factor in (1, *FACTORS)
        if factor * frame.inner_height >= height and factor * frame.inner_width >= width
    )
    return next(enough, max(FACTORS))


def check_upscale(pipeline: CanvasPipeline, factor: int | None) -> None:
    """Raise ValueError for a factor that the pipeline cannot enlarge by; None is the product image's own need."""
    if factor not in (None, 1, *FACTORS):
        raise ValueError(f"upscale is {factor}: it must be {', '.join(map(str, (1, *FACTORS)))}, or None")
    if factor in FACTORS and pipeline.upscaler is None:
        raise ValueError(f"upscale is {factor}, but this model has no upscaler: assemble it with one")


def decode_backgrounds(
    pipeline: CanvasPipeline, latents: torch.Tensor, features: list[torch.Tensor] | None, frame: Frame
) -> list[Background]:
    """Decode raw latents (N, C, h, w) of one frame.

    `features`: of the conditional decoder, for each or one for all; None: the autoencoder's own decoder. Raises
    ValueError if the latents or the images are not finite.
    """
    check_finite(latents, "the denoiser")
    shifts: Sequence[NDArray[np.float32] | None] = [None] * len(latents)
    if features is not None:
        decoded, shift = pipeline.decoder.decode(latents.to(pipeline.decoder.dtype), features)
        shifts = list(shift[:, 0].float().cpu().numpy())
    else:
        decoded = pipeline.vae.decode(latents.to(pipeline.vae.dtype)).sample
    check_finite(decoded, "the autoencoder" if features is None else "the conditional decoder")
    images = tensor_to_bytes(decoded).permute(0, 2, 3, 1).cpu().numpy()
    return [Background(frame, pixels, shift) for pixels, shift in zip(images, shifts, strict=True)]


def check_finite(values: torch.Tensor, source: str) -> None:
    """Raise ValueError, naming what gave them, if any of `values` is NaN or infinite: as an image they would be a black
    square."""
    if not torch.isfinite(values).all():
        share = 1 - torch.isfinite(values).float().mean().item()
        raise ValueError(
            f"{source} gave NaN or infinity in {share:.0%} of its numbers: its weights are damaged, or they need a "
            "wider number format (--precision fp32)"
        )
