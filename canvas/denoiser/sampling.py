"""From noise to latents: the sampling loop, and the one way in which everybody calls it.

N: latents in a pass, C: latent channels, h and w: latent size. S and E: sets and width of image embeddings
(canvas.denoiser.image_prompt). The loop's latents are normalised (`LatentScale`), the sampler's raw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel

from canvas.denoiser.attention import cache_projections
from canvas.denoiser.image_prompt import apply_style, get_embedding_width, has_image_prompt
from canvas.denoiser.schedulers import apply_guidance, predict_clean_latents
from canvas.denoiser.unet import build_inpaint_input
from canvas.train.precision import cast_parameters, choose_autocast_dtype
from canvas.train.spec import Precision
from canvas.train.state import eval_mode
from canvas.vae.latents import LatentScale

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
    image_scales: tuple[Mapping[str, float], ...] | None = (
        None  # of the S sets by layer; None: as the denoiser has them
    )


def sample_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return noise (N, *shape), a function of each seed alone, the same on every device."""
    drawn = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSampler:
    """The way from noise to raw latents, for one request or many."""

    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    scale: LatentScale
    steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    guidance_stop: float = 1.0
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
        """Return the raw latents of one pass; arguments as `sample_latents` takes them."""
        dtype = None if self.precision is None else choose_autocast_dtype(noise.device, self.precision)
        with eval_mode(self.unet), cast_parameters(dtype, self.unet), apply_style(self.unet, condition.image_scales):
            latents = sample_latents(
                self.unet,
                self.scheduler,
                noise,
                condition,
                steps=self.steps,
                guidance_scale=self.guidance_scale,
                guidance_rescale=self.guidance_rescale,
                guidance_stop=self.guidance_stop,
                on_step=on_step,
                selectors=selectors,
            )
        return self.scale.denormalize(latents)


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    noise: torch.Tensor,
    condition: Condition,
    *,
    steps: int,
    guidance_scale: float,
    guidance_rescale: float = 0.0,
    guidance_stop: float = 1.0,
    on_step: OnStep | None = None,
    selectors: Mapping[int, LatentSelector] | None = None,
) -> torch.Tensor:
    """Sample normalised latents (N, C, h, w) from unit noise of that shape, in the noise's number format.

    Args:
        unet: The denoiser.
        scheduler: The sampler.
        noise: (N, C, h, w).
        condition: What the denoiser is conditioned on.
        steps: Of the scheduler.
        guidance_scale: 1: no guidance.
        guidance_rescale: As `apply_guidance` takes it.
        guidance_stop: Share of the steps, 0 to 1, that are guided; the others, where only detail is left to generate,
            cost half (Kynkäänniemi et al. 2024).
        on_step: Called after every step.
        selectors: Steps done -> which latents to go on with; fewer than N come back.

    Raises:
        ValueError: For `selectors` with a scheduler that remembers earlier steps.
    """
    size, dtype = len(noise), unet.dtype
    scheduler.set_timesteps(steps, device=noise.device)
    guided_steps = round(guidance_stop * len(scheduler.timesteps)) if guidance_scale != 1 else 0
    is_guided = guided_steps > 0
    states, pooled, sizes = (
        given.to(noise.device, dtype).expand(size, *given.shape[1:])
        for given in (condition.states, condition.pooled, condition.sizes)
    )
    if is_guided:
        states = torch.cat([_expand_negative(condition.negative_states, states), states])
        pooled = torch.cat([_expand_negative(condition.negative_pooled, pooled), pooled])
        sizes = torch.cat([sizes, sizes])
    added: dict[str, torch.Tensor | list[torch.Tensor]] = {"text_embeds": pooled, "time_ids": sizes}
    if has_image_prompt(unet):
        added["image_embeds"] = _prepare_image_embeddings(unet, condition.image_embeddings, states[-size:], is_guided)

    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    with cache_projections(unet):
        for step, timestep in enumerate(scheduler.timesteps):
            if is_guided and step >= guided_steps:
                is_guided, states = False, states[len(latents) :]
                added = _select_added_rows(added, slice(len(latents), None))
            scaled = hasattr(scheduler, "scale_model_input")
            inputs = scheduler.scale_model_input(latents, timestep) if scaled else latents
            if condition.hole is not None:
                assert condition.masked_latents is not None
                inputs = build_inpaint_input(inputs, condition.hole.to(noise), condition.masked_latents.to(noise))
            inputs = torch.cat([inputs, inputs]) if is_guided else inputs
            prediction = unet(inputs.to(dtype), timestep, states, added_cond_kwargs=added, return_dict=False)[0]
            prediction = prediction.to(latents)
            if is_guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = apply_guidance(unconditional, conditional, guidance_scale, guidance_rescale)
            selector = selectors.get(step + 1) if selectors else None
            clean = predict_clean_latents(scheduler, prediction, latents, step) if selector is not None else None
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                latents = on_step(step, timestep, latents)
            if selector is not None:
                assert clean is not None
                kept = torch.tensor(list(selector(clean)), device=latents.device)
                rows = torch.cat([kept, kept + len(latents)]) if is_guided else kept
                latents, condition = latents[kept], _select_condition_rows(condition, kept)
                states, added = states[rows], _select_added_rows(added, rows)
    return latents


def _select_added_rows(
    added: Mapping[str, torch.Tensor | list[torch.Tensor]], rows: torch.Tensor | slice
) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    return {
        name: given[rows] if isinstance(given, torch.Tensor) else [embedding[rows] for embedding in given]
        for name, given in added.items()
    }


def _select_condition_rows(condition: Condition, rows: torch.Tensor) -> Condition:
    """`condition` of those latents alone, where it is not the same in all."""
    columns = {name: getattr(condition, name) for name in ("hole", "masked_latents")}
    return replace(
        condition, **{name: given[rows] for name, given in columns.items() if given is not None and len(given) > 1}
    )


def _prepare_image_embeddings(
    unet: UNet2DConditionModel, image: torch.Tensor | None, states: torch.Tensor, is_guided: bool
) -> list[torch.Tensor]:
    """Return a tensor a set, (N, 1, E) or with guidance (2N, 1, E), whose first half is zeros, as a dropped image in
    training."""
    if image is None:
        image = states.new_zeros(1, 1, get_embedding_width(unet))
    image = image.to(states).expand(len(states), *image.shape[1:])
    image = torch.cat([torch.zeros_like(image), image]) if is_guided else image
    return list(image.split(1, dim=1))


def _expand_negative(given: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if given is None else given.to(like).expand(like.shape)
