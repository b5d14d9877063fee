"""The weaker version of a pipeline's denoiser, from which autoguidance leads away: itself without its LoRAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from canvas.denoiser.adapters import copy_without_adapters
from canvas.denoiser.family import Denoiser
from canvas.denoiser.lora import STYLE_LORA, list_lora_names

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline


def get_weak_denoiser(pipeline: CanvasPipeline) -> Denoiser | None:
    """Return a copy of the pipeline's denoiser without its LoRAs: made once, before they are merged, and held beside
    it. None: it has none any more, or never had."""
    if pipeline.weak is None and any(name != STYLE_LORA for name in list_lora_names(pipeline.denoiser)):
        pipeline.weak = copy_without_adapters(pipeline.denoiser)
    if pipeline.weak is not None:  # ModelMixin.to would warn of the cast
        nn.Module.to(pipeline.weak, pipeline.device, pipeline.denoiser.dtype)
    return pipeline.weak


def choose_autoguidance(pipeline: CanvasPipeline, given: float | None, *, has_prompt: bool) -> float:
    """Return the scale that a caller gave; None: the one that the model recommends beside a prompt, where the denoiser
    has LoRAs."""
    if given is not None:
        return given
    recommended = pipeline.recommended_sampling.autoguidance_scale if has_prompt else 0.0
    return recommended if recommended and get_weak_denoiser(pipeline) is not None else 0.0
