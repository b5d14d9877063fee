"""From noise to latents: the one way in which everybody samples.

N: latents in a pass, C: latent channels, h and w: latent size. S and E: sets and width of image embeddings
(canvas.denoiser.image_prompt).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel

from canvas.denoiser.image_prompt import apply_style, get_embedding_width, has_image_prompt
from canvas.denoiser.schedulers import apply_guidance, predict_clean_latents
from canvas.denoiser.unet import UNetCondition, build_inpaint_input, cache_projections, run_unet
from canvas.train.precision import cast_parameters, choose_autocast_dtype
from canvas.train.spec import Precision
from canvas.train.state import eval_mode
from canvas.vae.model import LatentScale

OnStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step from 0, timestep, latents) -> the latents to go on with."""

LatentSelector = Callable[[torch.Tensor], Sequence[int]]
"""Predictions of the clean latents (N, C, h, w) -> which of the N to go on with, in the order wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What the denoiser is conditioned on; first dimensions are N, or 1 for the same in all."""

    states: torch.Tensor  # (N, L, D)
    pooled: torch.Tensor  # (N, P)
    sizes: torch.Tensor  # (N, 6)
    negative_states: torch.Tensor | None = None  # None: zeros, as a dropped caption in training
    negative_pooled: torch.Tensor | None = None
    hole: torch.Tensor | None = None  # (N, 1, h, w), 1 = generate; None: text-to-image
    masked_latents: torch.Tensor | None = None  # (N, C, h, w), normalised
    image_embeddings: torch.Tensor | None = None  # (N, S, E), for a denoiser with image prompts; None: no image
    image_scales: tuple[Mapping[str, float], ...] | None = None
    """Scales of the S sets by layer; None: as the denoiser has them."""


def sample_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return noise (N, *shape), a function of each seed alone, the same on every device."""
    noise = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSampler:
    """The way from noise to raw latents, for one request or many."""

    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    scale: LatentScale
    steps: int  # of the scheduler
    guidance_scale: float  # 1: no guidance
    guidance_rescale: float = 0.0  # as `apply_guidance` takes it
    guidance_stop: float = 1.0
    """Share of the steps, 0 to 1, that are guided; the others, where only detail is left to generate, cost half
    (Kynkäänniemi et al. 2024)."""
    precision: Precision | None = None  # of the denoiser's weights meanwhile; None: as they are

    @torch.no_grad()
    def sample(
        self,
        noise: torch.Tensor,
        condition: Condition,
        *,
        on_step: OnStep | None = None,
        selectors: Mapping[int, LatentSelector] | None = None,
    ) -> torch.Tensor:
        """Return raw latents from unit noise (N, C, h, w), in the noise's number format.

        `on_step` gets normalised latents after every step. `selectors`: steps done -> which latents to go on with;
        fewer than N come back. Raises ValueError for `selectors` with a scheduler that remembers earlier steps.
        """
        dtype = None if self.precision is None else choose_autocast_dtype(noise.device, self.precision)
        with (
            eval_mode(self.unet),
            cast_parameters(dtype, self.unet),
            apply_style(self.unet, condition.image_scales),
            cache_projections(self.unet),
        ):
            latents = self._denoise(noise, condition, on_step, selectors or {})
        return self.scale.denormalize(latents)

    def _denoise(
        self,
        noise: torch.Tensor,
        condition: Condition,
        on_step: OnStep | None,
        selectors: Mapping[int, LatentSelector],
    ) -> torch.Tensor:
        scheduler, dtype = self.scheduler, self.unet.dtype
        scheduler.set_timesteps(self.steps, device=noise.device)
        guided_steps = round(self.guidance_stop * len(scheduler.timesteps)) if self.guidance_scale != 1 else 0
        unet_condition = _build_unet_condition(self.unet, condition, noise, is_guided=guided_steps > 0)
        hole, masked = (
            None if part is None else part.to(noise).expand(len(noise), -1, -1, -1)
            for part in (condition.hole, condition.masked_latents)
        )
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        for step, timestep in enumerate(scheduler.timesteps):
            is_guided = step < guided_steps
            if 0 < step == guided_steps:
                unet_condition = unet_condition.select_rows(slice(len(latents), None))
            is_scaled = hasattr(scheduler, "scale_model_input")
            inputs = scheduler.scale_model_input(latents, timestep) if is_scaled else latents
            if hole is not None:
                assert masked is not None
                inputs = build_inpaint_input(inputs, hole, masked)
            inputs = torch.cat([inputs, inputs]) if is_guided else inputs
            prediction = run_unet(self.unet, inputs.to(dtype), timestep, unet_condition).to(latents)
            if is_guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = apply_guidance(unconditional, conditional, self.guidance_scale, self.guidance_rescale)
            selector = selectors.get(step + 1)
            clean = None if selector is None else predict_clean_latents(scheduler, prediction, latents, step)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                latents = on_step(step, timestep, latents)
            if selector is not None and clean is not None:
                rows = torch.tensor(list(selector(clean)), device=latents.device)
                unet_condition = unet_condition.select_rows(
                    torch.cat([rows, rows + len(latents)]) if is_guided else rows
                )
                latents = latents[rows]
                hole, masked = (None if part is None else part[rows] for part in (hole, masked))
        return latents


def _build_unet_condition(
    unet: UNet2DConditionModel, condition: Condition, noise: torch.Tensor, *, is_guided: bool
) -> UNetCondition:
    """Build the condition of all N; with guidance of 2N, the unconditional ones first, whose image is zeros, as a
    dropped one in training."""

    def expand(values: torch.Tensor) -> torch.Tensor:
        return values.to(noise.device, unet.dtype).expand(len(noise), *values.shape[1:])

    states, pooled, sizes = expand(condition.states), expand(condition.pooled), expand(condition.sizes)
    image = None
    if has_image_prompt(unet):
        no_image = states.new_zeros(1, 1, get_embedding_width(unet))
        image = expand(no_image if condition.image_embeddings is None else condition.image_embeddings)
    if is_guided:
        negative_states, negative_pooled = condition.negative_states, condition.negative_pooled
        no_text = torch.zeros_like(states) if negative_states is None else expand(negative_states)
        no_pooled = torch.zeros_like(pooled) if negative_pooled is None else expand(negative_pooled)
        states, pooled, sizes = (
            torch.cat(halves) for halves in ((no_text, states), (no_pooled, pooled), (sizes, sizes))
        )
        image = None if image is None else torch.cat([torch.zeros_like(image), image])
    images = None if image is None else list(image.chunk(image.shape[1], dim=1))
    return UNetCondition(states=states, pooled=pooled, sizes=sizes, images=images)
