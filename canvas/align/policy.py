"""The denoiser as a policy: the LoRA in training, and earlier states of it that sample and that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from diffusers import ModelMixin
from torch import nn

from canvas.denoiser.family import Denoiser, DenoiserCondition
from canvas.denoiser.loading import get_family
from canvas.denoiser.sampling import Condition
from canvas.denoiser.schedulers import apply_guidance

PolicyState = Literal["old", "average", "start"]
"""old: the one that sampled; average: a slow average of the policy; start: before training, where the LoRA is nil."""


class Policy(nn.Module):
    """A denoiser whose only trained weights are those of a new LoRA.

    The other states are buffers, so that a checkpoint holds them; within `use_state` they stand in the weights' place.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser: ModelMixin = denoiser
        self._weights = [weight for weight in denoiser.parameters() if weight.requires_grad]
        for state in ("old", "average"):
            for number, weight in enumerate(self._weights):
                self.register_buffer(f"{state}_{number}", weight.detach().clone())

    @property
    def _supports_gradient_checkpointing(self) -> bool:
        return bool(getattr(self.denoiser, "_supports_gradient_checkpointing", False))

    def enable_gradient_checkpointing(self) -> None:
        """Let the denoiser's blocks run again in the backward pass."""
        self.denoiser.enable_gradient_checkpointing()

    @contextmanager
    def use_state(self, state: PolicyState) -> Iterator[None]:
        """Within the context the denoiser is the policy of that state. Gradients are none of its business."""
        current = [weight.data for weight in self._weights]
        self._set_weights(self._get_state(state))
        try:
            with torch.no_grad():
                yield
        finally:
            self._set_weights(current)

    @torch.no_grad()
    def update_state(self, state: Literal["old", "average"], decay: float) -> None:
        """Move a state towards the current weights: it keeps `decay` of itself; 0 makes it equal to the bit."""
        for kept, weight in zip(self._get_state(state), self._weights, strict=True):
            kept.copy_(weight if decay == 0 else torch.lerp(weight, kept, decay))

    def copy_weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of the trained weights, on the CPU."""
        return {
            str(number): weight.detach().to("cpu", copy=True).contiguous()
            for number, weight in enumerate(self._weights)
        }

    @torch.no_grad()
    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put back what `copy_weights` returned."""
        for number, weight in enumerate(self._weights):
            weight.copy_(weights[str(number)])

    def _get_state(self, state: PolicyState) -> list[torch.Tensor]:
        if state == "start":
            return [torch.zeros_like(weight) for weight in self._weights]
        return [self.get_buffer(f"{state}_{number}") for number in range(len(self._weights))]

    def _set_weights(self, values: Sequence[torch.Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.data = value
        torch.clear_autocast_cache()  # it knows weights by their tensors, whose content has changed


def predict_noised(
    denoiser: Denoiser,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    condition: Condition,
    guidance_scale: float = 1.0,
) -> torch.Tensor:
    """Return the prediction, float32 (N, C, h, w), for latents (N, C, h, w) at `timesteps` (N,), of a condition of N.

    With guidance the unconditional side has no caption, as in `canvas.denoiser.sampling`; a network that was distilled
    with guidance reads the scale instead.
    """
    family, inputs = get_family(denoiser), latents
    if condition.hole is not None:
        assert condition.masked_latents is not None
        inputs = family.build_inpaint_input(latents, condition.hole, condition.masked_latents)
    states, pooled, sizes = condition.states, condition.pooled, condition.sizes
    reads_guidance = family.reads_guidance(denoiser.config)
    if guidance_scale == 1 or reads_guidance:
        guidance = latents.new_full((len(latents),), guidance_scale) if reads_guidance else None
        network = DenoiserCondition(states=states, pooled=pooled, sizes=sizes, images=None, guidance=guidance)
        return family.predict(denoiser, inputs, timesteps, network).float()
    network = DenoiserCondition(
        states=torch.cat([torch.zeros_like(states), states]),
        pooled=torch.cat([torch.zeros_like(pooled), pooled]),
        sizes=torch.cat([sizes, sizes]),
        images=None,
    )
    both = family.predict(denoiser, torch.cat([inputs, inputs]), torch.cat([timesteps, timesteps]), network).float()
    unconditional, conditional = both.chunk(2)
    return apply_guidance(unconditional, conditional, guidance_scale)
