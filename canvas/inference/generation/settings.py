"""How the images of one request are generated, and what a request may ask of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch

from canvas.denoiser.loading import get_family
from canvas.denoiser.passes.stepping import check_autoguidance, check_reuse
from canvas.denoiser.spec import ReuseSpec
from canvas.inference.autoguidance import get_weak_denoiser
from canvas.inference.conditioning import check_upscale
from canvas.light.shadow.spec import KEPT_SHADOW, NO_SHADOW, check_strength
from canvas.light.spec import KEPT_REFLECTION, NO_LIGHT, SOFT_PHOTOGRAPH, Mode

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt
    from canvas.layout.spec import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSettings:
    """What `CanvasPipeline.__call__` takes beside the scene; what it was not given is as the model recommends."""

    mode: Mode
    shadow: float  # strength, 0 to 1
    reflection: float  # likewise
    steps: int  # of the scheduler
    guidance_scale: float
    guidance_rescale: float
    guidance_stop: float
    autoguidance_scale: float
    reuse: ReuseSpec | None  # what steps take over from earlier ones; None: nothing
    candidates: int
    candidates_per_pass: int
    seed: int | None
    seed_by_product: bool
    generator: torch.Generator | list[torch.Generator] | None
    scheduler: str | None  # None: the one that the model recommends
    upscale: int | None


def check_request(
    pipeline: CanvasPipeline,
    settings: GenerationSettings,
    *,
    prompt: str | None,
    negative_prompt: str | None,
    style: StylePrompt | None,
    layout: Layout | None,
) -> None:
    """Raise ValueError, in one sentence, for what is out of range, contradicts itself, or this model cannot do or
    refuses."""
    counts = {
        "num_inference_steps": settings.steps,
        "num_candidates": settings.candidates,
        "candidates_per_pass": settings.candidates_per_pass,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: it must be 1 or more")
    _check_guidance(pipeline, settings, negative_prompt)
    if settings.mode not in get_args(Mode):
        raise ValueError(f"mode is {settings.mode!r}: it must be hard or soft")
    if settings.mode == "soft" and pipeline.light is None:
        raise ValueError(NO_LIGHT)
    if settings.mode == "soft" and layout is not None and layout.keeps_photograph:
        raise ValueError(SOFT_PHOTOGRAPH)
    check_strength("shadow", settings.shadow)
    if settings.shadow > 0 and pipeline.shadow is None:
        raise ValueError(NO_SHADOW)
    if settings.shadow > 0 and layout is not None and layout.keeps_photograph:
        raise ValueError(KEPT_SHADOW)
    check_strength("reflection", settings.reflection, "reflection")
    if settings.reflection > 0 and layout is not None and layout.keeps_photograph:
        raise ValueError(KEPT_REFLECTION)
    if settings.seed is not None and settings.generator is not None:
        raise ValueError("seed and generator were both given: give one of them")
    if settings.seed_by_product and settings.seed is None:
        raise ValueError("seed_by_product was given without a seed: give one")
    if prompt is None and style is None:
        raise ValueError("neither a prompt nor a style was given: give one of them or both")
    check_upscale(pipeline, settings.upscale)
    check_reuse(settings.reuse, pipeline.denoiser)
    check_autoguidance(
        settings.autoguidance_scale, get_weak_denoiser(pipeline) if settings.autoguidance_scale else None
    )
    pipeline.check_prompts(prompt, negative_prompt)


def _check_guidance(pipeline: CanvasPipeline, settings: GenerationSettings, negative_prompt: str | None) -> None:
    scale, rescale, stop = settings.guidance_scale, settings.guidance_rescale, settings.guidance_stop
    if scale < 1:
        raise ValueError(f"guidance_scale is {scale}: 1 is no guidance, more follows the prompt closer")
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance_rescale is {rescale}: it must be from 0, not rescaled, to 1, wholly")
    if not 0 <= stop <= 1:
        raise ValueError(f"guidance_stop is {stop}: it must be from 0, no step guided, to 1, all of them")
    if get_family(pipeline.denoiser).reads_guidance(pipeline.denoiser.config):
        for name, value in {"negative_prompt": negative_prompt, "guidance_rescale": rescale}.items():
            if value:
                raise ValueError(
                    f"{name} is {value!r}: this denoiser was distilled with guidance and has nothing to compare "
                    "with, leave it out"
                )
