"""From noise to latents: the sampling loop on latents and text states, without pictures.

N: latents in a pass, C: latent channels, h and w: latent size; latents are normalised (`LatentScale`). S and E: sets
and width of image embeddings (canvas.denoiser.image_prompt).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel

from canvas.denoiser.attention import cache_projections
from canvas.denoiser.image_prompt import get_embedding_width, has_image_prompt
from canvas.denoiser.schedulers import apply_guidance, predict_clean_latents
from canvas.denoiser.unet import build_inpaint_input

OnStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step from 0, timestep, latents) -> the latents to go on with."""

LatentSelector = Callable[[torch.Tensor], Sequence[int]]
"""Predictions of the clean latents (N, C, h, w) -> which of the N to go on with, in the order wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What the denoiser is told; first dimensions are N, or 1 for the same in all."""

    states: torch.Tensor  # (N, L, D)
    pooled: torch.Tensor  # (N, P)
    sizes: torch.Tensor  # (N, 6)
    negative_states: torch.Tensor | None = None  # None: zeros, as a dropped caption in training
    negative_pooled: torch.Tensor | None = None
    hole: torch.Tensor | None = None  # (N, 1, h, w), 1 = paint; None: text-to-image
    masked: torch.Tensor | None = None  # (N, C, h, w)
    image: torch.Tensor | None = None  # (N, S, E), for a denoiser with image prompts; None: no picture


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
    picks: Mapping[int, LatentSelector] | None = None,
) -> torch.Tensor:
    """Latents (N, C, h, w) sampled from unit `noise` of that shape, with guidance if its scale is not 1.

    They are of the noise's number format, whatever the denoiser's is.

    `guidance_stop`: the share of the steps, 0 to 1, that are guided; the others, where only detail is left to paint,
    cost half (Kynkäänniemi et al. 2024).
    `picks`: steps done -> what is asked then; those that it leaves out are not denoised further, and fewer than N come
    back. Only for schedulers that remember nothing of earlier steps, else ValueError.
    """
    size, own = len(noise), unet.dtype
    scheduler.set_timesteps(steps, device=noise.device)
    guided_steps = round(guidance_stop * len(scheduler.timesteps)) if guidance_scale != 1 else 0
    both = guided_steps > 0
    states, pooled, sizes = (
        given.to(noise.device, own).expand(size, *given.shape[1:])
        for given in (condition.states, condition.pooled, condition.sizes)
    )
    if both:
        states = torch.cat([_expand_negative(condition.negative_states, states), states])
        pooled = torch.cat([_expand_negative(condition.negative_pooled, pooled), pooled])
        sizes = torch.cat([sizes, sizes])
    added: dict[str, torch.Tensor | list[torch.Tensor]] = {"text_embeds": pooled, "time_ids": sizes}
    if has_image_prompt(unet):
        added["image_embeds"] = _prepare_image_embeddings(unet, condition.image, states[-size:], both)

    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    with cache_projections(unet):
        for step, time in enumerate(scheduler.timesteps):
            if both and step >= guided_steps:
                both, states, added = (
                    False,
                    states[len(latents) :],
                    _select_added_rows(added, slice(len(latents), None)),
                )
            seen = scheduler.scale_model_input(latents, time) if hasattr(scheduler, "scale_model_input") else latents
            if condition.hole is not None:
                assert condition.masked is not None
                seen = build_inpaint_input(seen, condition.hole.to(noise), condition.masked.to(noise))
            seen = torch.cat([seen, seen]) if both else seen
            prediction = unet(seen.to(own), time, states, added_cond_kwargs=added, return_dict=False)[0].to(latents)
            if both:
                unconditional, conditional = prediction.chunk(2)
                prediction = apply_guidance(unconditional, conditional, guidance_scale, guidance_rescale)
            asked = picks.get(step + 1) if picks else None
            clean = predict_clean_latents(scheduler, prediction, latents, step) if asked is not None else None
            latents = scheduler.step(prediction, time, latents, return_dict=False)[0]
            if on_step is not None:
                latents = on_step(step, time, latents)
            if asked is not None:
                assert clean is not None
                left = torch.tensor(list(asked(clean)), device=latents.device)
                rows = torch.cat([left, left + len(latents)]) if both else left
                latents, condition = latents[left], _select_condition_rows(condition, left)
                states, added = states[rows], _select_added_rows(added, rows)
    return latents


def _select_added_rows(
    added: Mapping[str, torch.Tensor | list[torch.Tensor]], rows: torch.Tensor | slice
) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """What is added to the text states, of those rows alone."""
    return {
        name: given[rows] if isinstance(given, torch.Tensor) else [one[rows] for one in given]
        for name, given in added.items()
    }


def _select_condition_rows(condition: Condition, rows: torch.Tensor) -> Condition:
    """`condition` of those pictures alone, where it is not the same in all."""
    known = {name: getattr(condition, name) for name in ("hole", "masked")}
    kept = {name: given[rows] for name, given in known.items() if given is not None and len(given) > 1}
    return replace(condition, **kept)


def _prepare_image_embeddings(
    unet: UNet2DConditionModel, image: torch.Tensor | None, states: torch.Tensor, both: bool
) -> list[torch.Tensor]:
    """A tensor a set, (N, 1, E) or with guidance (2N, 1, E), whose first half is zeros, as a dropped picture in
    training."""
    if image is None:
        image = states.new_zeros(1, 1, get_embedding_width(unet))
    image = image.to(states).expand(len(states), *image.shape[1:])
    image = torch.cat([torch.zeros_like(image), image]) if both else image
    return list(image.split(1, dim=1))


def _expand_negative(given: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if given is None else given.to(like).expand(like.shape)
