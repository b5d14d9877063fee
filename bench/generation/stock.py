"""Diffusers' own Flux inpainting pipeline round the parts of a generator of ours.

`FluxFillPipeline` runs as it is. What it lacks stands round its parts: true guidance, which its transformer gets as
`FluxInpaintPipeline` gives it, by a second call a step; and our autoencoder, whose latents are scaled by channel.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import nn

from canvas.clip.model import encode_prompts
from canvas.denoiser.sampling import sample_noise
from canvas.denoiser.schedulers import set_steps
from canvas.denoiser.spec import RecommendedSampling
from canvas.inference.conditioning import Background, frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.pins.images import Pixels
from canvas.vae.model import Vae, compute_posterior, decode_latents, get_latent_scale, get_scale_factor


class GuidedTransformer(nn.Module):
    """A transformer that answers with true guidance in the first steps after `start`."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer, self.config = transformer, transformer.config
        self.scale, self.guided_steps, self.step = 1.0, 0, 0

    @property
    def device(self) -> torch.device:
        return self.transformer.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.dtype  # type: ignore[no-any-return]

    def start(self, scale: float, guided_steps: int) -> None:
        """Begin a way from noise to latents."""
        self.scale, self.guided_steps, self.step = scale, guided_steps, 0

    def forward(
        self, encoder_hidden_states: torch.Tensor, pooled_projections: torch.Tensor, **inputs: Any
    ) -> tuple[torch.Tensor]:
        prediction = self.transformer(
            encoder_hidden_states=encoder_hidden_states, pooled_projections=pooled_projections, **inputs
        )[0]
        if self.step < self.guided_steps:
            negative = self.transformer(
                encoder_hidden_states=torch.zeros_like(encoder_hidden_states),
                pooled_projections=torch.zeros_like(pooled_projections),
                **inputs,
            )[0]
            prediction = negative + self.scale * (prediction - negative)
        self.step += 1
        return (prediction,)


class ScaledAutoencoder(nn.Module):
    """An autoencoder whose latents are the denoiser's, with the interface that the pipeline calls; a posterior is its
    mode, as ours takes it."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae, self.scale = vae, get_latent_scale(vae)
        levels = get_scale_factor(vae).bit_length()  # the pipeline counts them: each halves
        self.config = SimpleNamespace(
            block_out_channels=[0] * levels,
            latent_channels=vae.config["latent_channels"],
            scaling_factor=1.0,
            shift_factor=0.0,
        )

    @property
    def device(self) -> torch.device:
        return self.vae.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    def encode(self, images: torch.Tensor) -> SimpleNamespace:
        """Return a posterior, whose sample is its mode."""
        latents = self.scale.normalize(compute_posterior(self.vae, images).mode())
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda generator: latents))

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Return images of the denoiser's latents."""
        images = decode_latents(self.vae, self.scale.denormalize(latents))
        return DecoderOutput(sample=images) if return_dict else (images,)


class StockGenerator:
    """What a user of diffusers would generate with: the parts of a generator of ours in its pipeline.

    Args:
        pipeline: Ours, its LoRAs merged. Denoiser and autoencoder are copied without adapters.
        dtype: Of all parts.
    """

    def __init__(self, pipeline: CanvasPipeline, dtype: torch.dtype) -> None:
        self.ours, self.dtype = pipeline, dtype
        self.transformer = GuidedTransformer(strip_adapters(pipeline.denoiser))
        none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        self.stock = FluxFillPipeline(
            transformer=self.transformer,
            vae=ScaledAutoencoder(copy.deepcopy(pipeline.vae)),
            scheduler=copy.deepcopy(pipeline.scheduler),
            **none,
        )
        nn.Module.to(self.transformer, dtype)
        nn.Module.to(self.stock.vae, dtype)
        self.stock.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def generate(
        self,
        product: Product,
        prompt: str,
        *,
        seed: int,
        candidates: int,
        sampling: RecommendedSampling,
        guidance_stop: float,
        output_type: str = "pil",
    ) -> Any:
        """Return images of the frame's size, or packed latents; the same noise as ours at that seed."""
        framed, pipeline = frame_for_pipeline(self.ours, product), self.stock
        height, width = framed.frame.height, framed.frame.width
        states, pooled = (part.to(self.dtype) for part in encode_prompts(self.ours.towers, [prompt]))
        cell, channels = get_scale_factor(self.ours.vae), self.ours.vae.config["latent_channels"]
        shape = channels, height // cell, width // cell
        noise = sample_noise(shape, range(seed, seed + candidates), torch.device("cpu"))
        self.transformer.start(sampling.guidance_scale, round(guidance_stop * sampling.steps))
        return pipeline(
            image=(framed.pixels + 1) / 2,
            mask_image=1 - framed.mask,
            height=height,
            width=width,
            prompt_embeds=states.repeat(candidates, 1, 1),
            pooled_prompt_embeds=pooled.repeat(candidates, 1),
            latents=pipeline._pack_latents(noise, candidates, *shape).to(self.dtype),
            num_inference_steps=sampling.steps,
            sigmas=list_sigmas(self.ours.scheduler, sampling.steps),
            output_type=output_type,
        ).images

    def composite(self, product: Product, image: Any) -> Pixels:
        """Return an image of the product image's size with the product pasted on it."""
        frame = frame_for_pipeline(self.ours, product).frame
        return Background(frame, np.asarray(image), None).composite(product)


def strip_adapters(denoiser: Any) -> Any:
    """Return a copy without LoRAs and image prompts, as a stock pipeline holds it."""
    from canvas.denoiser.image_prompt import has_image_prompt, remove_image_prompt

    copied = copy.deepcopy(denoiser)
    if getattr(copied, "peft_config", None):
        copied.unload_lora()
    return remove_image_prompt(copied) if has_image_prompt(copied) else copied


def list_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int) -> list[float]:
    """Return our noise levels before the scheduler's shift, which it gives again to those that a pipeline hands it."""
    scheduler_copy, shift = copy.deepcopy(scheduler), float(scheduler.config["shift"])
    set_steps(scheduler_copy, steps, tokens=1)
    shifted = scheduler_copy.sigmas[:-1].double()
    return (shifted / (shift - (shift - 1) * shifted)).tolist()
