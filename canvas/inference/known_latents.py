"""What an image shows already where it is generated: it gets noise in every step, and is free in the last ones alone.

Each place has a share of the steps of its own (Differential Diffusion, Levin and Fried 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray

from canvas.denoiser.sampling import OnStep
from canvas.denoiser.schedulers import is_flow
from canvas.pins.images import Pixels, bytes_to_tensor
from canvas.vae.model import get_latent_scale

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline


@dataclass(frozen=True, slots=True)
class KnownLatents:
    """What is there, of N images or of all."""

    clean: torch.Tensor  # (N or 1, C, h, w), normalised
    strengths: torch.Tensor  # (N or 1, 1, h, w), 0 to 1: share of the steps, the last ones, in which a place is free

    def hold(self, scheduler: SchedulerMixin, read_noise: Callable[[], torch.Tensor], on_step: OnStep | None) -> OnStep:
        """Return what a sampler calls after every step: it puts back what is not free yet, then calls `on_step`.

        Args:
            scheduler: The sampler's.
            read_noise: -> the unit noise (N, C, h, w) of the images that are still gone on with.
            on_step: As the sampler takes it.
        """

        def put_back(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            steps = len(scheduler.timesteps)
            noisy = add_noise(scheduler, self.clean, read_noise(), step + 1)
            latents = torch.where(step < steps - (self.strengths * steps).round(), noisy, latents)
            return latents if on_step is None else on_step(step, timestep, latents)

        return put_back


def encode_known(pipeline: CanvasPipeline, pixels: Pixels | NDArray[np.float32]) -> torch.Tensor:
    """Return normalised latents (1, C, h, w) of an image (H, W, 3), uint8 or of floats in 0..255."""
    images = bytes_to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]).clamp(-1, 1)
    vae = pipeline.vae
    latents = vae.encode(images.to(pipeline.device, vae.dtype)).latent_dist.mode()
    return get_latent_scale(vae).normalize(latents).float()


def add_noise(scheduler: SchedulerMixin, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
    """Return clean latents (N or 1, C, h, w) as noisy as the scheduler's are before `step`, with unit noise
    (N, C, h, w); after the last one: clean."""
    clean = clean.expand(len(noise), -1, -1, -1)
    if step == len(scheduler.timesteps):
        return clean
    if is_flow(scheduler):
        sigma = scheduler.sigmas[step].to(clean)
        return (1 - sigma) * clean + sigma * noise
    noisy: torch.Tensor = scheduler.add_noise(clean, noise, scheduler.timesteps[step].repeat(len(clean)))
    return noisy
