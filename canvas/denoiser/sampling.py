"""From noise to latents: the one way in which everybody samples.

N: latents in a pass, C: latent channels, h and w: latent size. S and E: sets and width of image embeddings
(canvas.denoiser.image_prompt).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import SchedulerMixin

from canvas.denoiser.family import Denoiser, DenoiserCondition
from canvas.denoiser.image_prompt import apply_style, get_embedding_width, has_image_prompt
from canvas.denoiser.loading import get_family
from canvas.denoiser.passes.stepping import NO_REUSE, GuidedNetwork, check_autoguidance, check_reuse
from canvas.denoiser.passes.windows import LatentPlace, average_predictions
from canvas.denoiser.schedulers import drop_candidates, predict_clean_latents, set_steps
from canvas.denoiser.spec import ReuseSpec
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
    hole: torch.Tensor | None = None  # (N, K, h, w), as the family computes it; None: text-to-image
    masked_latents: torch.Tensor | None = None  # (N, C, h, w), normalised
    image_embeddings: torch.Tensor | None = None  # (N, S, E), for a denoiser with image prompts; None: no image
    image_scales: tuple[Mapping[str, float], ...] | None = None
    """Scales of the S sets by layer; None: as the denoiser has them."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a long image that is denoised as an image of its own, together with those that it overlaps."""

    place: LatentPlace
    condition: Condition  # of this part alone, hole and masked latents, too


def sample_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return noise (N, *shape), a function of each seed alone, the same on every device."""
    noise = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSampler:
    """The way from noise to raw latents, for one request or many."""

    denoiser: Denoiser
    scheduler: SchedulerMixin
    scale: LatentScale
    steps: int  # of the scheduler
    guidance_scale: float  # 1: no guidance; a denoiser that was distilled with guidance reads it, in one pass a step
    guidance_rescale: float = 0.0  # as `apply_guidance` takes it
    guidance_stop: float = 1.0
    """Share of the steps, 0 to 1, that are guided; the others, where only detail is left to generate, cost half
    (Kynkäänniemi et al. 2024)."""
    weak: Denoiser | None = None
    """A weaker version of the denoiser, from whose predictions guided steps are led away (autoguidance, Karras et al.
    2024): `copy_without_adapters`. None: there is none."""
    autoguidance_scale: float = 0.0  # how far; 0: not at all
    reuse: ReuseSpec | None = None  # what steps take over from earlier ones; None: nothing
    precision: Precision | None = None  # of the denoiser's weights meanwhile; None: as they are

    @torch.no_grad()
    def sample(
        self,
        noise: torch.Tensor,
        condition: Condition | Sequence[Window],
        *,
        on_step: OnStep | None = None,
        selectors: Mapping[int, LatentSelector] | None = None,
    ) -> torch.Tensor:
        """Return raw latents from unit noise (N, C, h, w), in the noise's number format.

        Args:
            noise: Of the whole image.
            condition: Of the whole image; or of windows of one size that cover it, whose predictions are averaged in
                every step (`average_predictions`), so that a long image is one.
            on_step: Gets normalised latents after every step.
            selectors: Steps done -> which latents to go on with; fewer than N come back.

        Raises:
            ValueError: For `selectors` with a scheduler that cannot drop candidates, for a reuse that the denoiser
                cannot make, and for autoguidance without a weaker denoiser.
        """
        check_reuse(self.reuse, self.denoiser)
        check_autoguidance(self.autoguidance_scale, self.weak)
        dtype = None if self.precision is None else choose_autocast_dtype(noise.device, self.precision)
        if isinstance(condition, Condition):
            windows = [Window(LatentPlace(0, 0, *noise.shape[-2:]), condition)]
        else:
            windows = list(condition)
        family, weak = get_family(self.denoiser), self.weak if self.autoguidance_scale else None
        with ExitStack() as stack:
            stack.enter_context(apply_style(self.denoiser, windows[0].condition.image_scales))
            for network in (self.denoiser, *([] if weak is None else [weak])):
                stack.enter_context(eval_mode(network))
                stack.enter_context(cast_parameters(dtype, network))
                if family.choose_preparation(network) is None:
                    stack.enter_context(cache_projections(network))
            latents = self._denoise(noise, windows, on_step, selectors or {})
        return self.scale.denormalize(latents)

    def _denoise(
        self,
        noise: torch.Tensor,
        windows: Sequence[Window],
        on_step: OnStep | None,
        selectors: Mapping[int, LatentSelector],
    ) -> torch.Tensor:
        scheduler, family = self.scheduler, get_family(self.denoiser)
        places = [window.place for window in windows]
        tokens = places[0].height * places[0].width // family.patch**2
        timesteps = set_steps(scheduler, self.steps, tokens=tokens, device=noise.device)
        compares = self.guidance_scale != 1 or self.autoguidance_scale != 0
        guided_steps = round(self.guidance_stop * len(timesteps)) if compares else 0
        networks = [self._build_network(window.condition, noise, is_guided=guided_steps > 0) for window in windows]
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        for step, timestep in enumerate(timesteps):
            if 0 < step == guided_steps:
                for network in networks:
                    network.end_guidance(len(latents))
            is_scaled = hasattr(scheduler, "scale_model_input")
            inputs = scheduler.scale_model_input(latents, timestep) if is_scaled else latents
            predict = partial(_predict_window, timestep=timestep, step=step, is_guided=step < guided_steps)
            prediction = average_predictions(inputs, places, networks, predict)
            selector = selectors.get(step + 1)
            clean = None if selector is None else predict_clean_latents(scheduler, prediction, latents, step)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                latents = on_step(step, timestep, latents)
            if selector is not None and clean is not None:
                rows = torch.tensor(list(selector(clean)), device=latents.device)
                for network in networks:
                    network.select_rows(rows, len(latents))
                drop_candidates(scheduler, rows)
                latents = latents[rows]
        return latents

    def _build_network(self, condition: Condition, noise: torch.Tensor, *, is_guided: bool) -> GuidedNetwork:
        """Return the network under a condition of all N."""
        denoiser = self.denoiser
        by_input = is_guided and self.guidance_scale != 1 and get_family(denoiser).reads_guidance(denoiser.config)
        passes_twice = is_guided and self.guidance_scale != 1 and not by_input
        scales = noise.new_full((len(noise),), self.guidance_scale) if by_input else None
        weak = self.weak if is_guided and self.autoguidance_scale else None
        return replace(
            self._condition_network(denoiser, condition, noise, passes_twice=passes_twice, scales=scales),
            weak=weak and self._condition_network(weak, condition, noise, passes_twice=False, scales=scales),
            autoguidance_scale=self.autoguidance_scale,
        )

    def _condition_network(
        self,
        denoiser: Denoiser,
        condition: Condition,
        noise: torch.Tensor,
        *,
        passes_twice: bool,
        scales: torch.Tensor | None,
    ) -> GuidedNetwork:
        """Return one of both networks; `scales`: those that one distilled with guidance reads."""
        hole, masked = (
            None if part is None else part.to(noise).expand(len(noise), -1, -1, -1)
            for part in (condition.hole, condition.masked_latents)
        )
        network_condition = _build_network_condition(denoiser, condition, noise, is_guided=passes_twice)
        return GuidedNetwork(
            denoiser=denoiser,
            prepare=get_family(denoiser).choose_preparation(denoiser),
            condition=network_condition if scales is None else replace(network_condition, guidance=scales),
            hole=hole,
            masked=masked,
            scale=self.guidance_scale,
            rescale=self.guidance_rescale,
            reuse=self.reuse or NO_REUSE,
        )


def _predict_window(
    latents: torch.Tensor, network: GuidedNetwork, *, timestep: torch.Tensor, step: int, is_guided: bool
) -> torch.Tensor:
    return network.predict(latents, timestep, step, is_guided=is_guided)


def _build_network_condition(
    denoiser: Denoiser, condition: Condition, noise: torch.Tensor, *, is_guided: bool
) -> DenoiserCondition:
    """Build the condition of all N; with guidance of 2N, the unconditional ones first, whose image is zeros, as a
    dropped one in training."""

    def expand(values: torch.Tensor) -> torch.Tensor:
        return values.to(noise.device, denoiser.dtype).expand(len(noise), *values.shape[1:])

    states, pooled, sizes = expand(condition.states), expand(condition.pooled), expand(condition.sizes)
    image = None
    if has_image_prompt(denoiser):
        no_image = states.new_zeros(1, 1, get_embedding_width(denoiser))
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
    return DenoiserCondition(states=states, pooled=pooled, sizes=sizes, images=images)


class CachedProjection:
    """A projection that remembers its last input, a tensor or a list of tensors, and output. Inputs are compared by
    identity: states that change between steps are projected anew, and a list must not be changed in place."""

    def __init__(self, project: Callable[..., Any]) -> None:
        self.project = project
        self.states: object = None
        self.output: Any = None

    def __call__(self, states: object, *args: Any, **kwargs: Any) -> Any:
        if self.output is None or states is not self.states:
            self.states, self.output = states, self.project(states, *args, **kwargs)
        return self.output


@contextmanager
def cache_projections(denoiser: Denoiser) -> Iterator[None]:
    """Within the context the denoiser projects its text states and image embeddings once, whatever its attention
    processors and LoRA are. For inference only: with gradients the graph of the first step would be kept."""
    names = get_family(denoiser).projection_names
    layers = [layer for name, layer in denoiser.named_modules() if names.search(name)]
    before = [layer.__dict__.get("forward") for layer in layers]  # there if an offloading hook put it there
    for layer in layers:
        layer.forward = CachedProjection(layer.forward)  # an attribute of the instance, before the class's method
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
