"""Steps of a sampler as a policy's actions: each is a Gaussian, whose density says how likely the sampled one was.

Eps and v: DDIM with eta (Song et al. 2021, eqs. 12 and 16). Flow: the SDE with the flow's marginals (Liu et al. 2025,
Flow-GRPO, eq. 9). The last step adds no noise, so that images are clean; it is no action.
N: latents; S: steps of the sampler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin

from canvas.denoiser.process import Diffusion, Flow
from canvas.denoiser.schedulers import build_scheduler, set_steps


@dataclass(frozen=True, slots=True)
class _SamplerSteps:
    """The steps of a sampler, all but the last of which are actions."""

    timesteps: torch.Tensor  # (S,)
    noise: float

    @property
    def actions(self) -> int:
        """Steps that add noise, the first of all."""
        return len(self.timesteps) - 1


@dataclass(frozen=True, slots=True)
class FlowTransitions(_SamplerSteps):
    """Steps of the stochastic flow from noise level sigma to the next.

    `noise` is level a: the noise that is added grows with sqrt(sigma / (1 - sigma)) times it.
    """

    process: Flow
    sigmas: torch.Tensor  # (S + 1,), the last 0

    def compute(
        self, latents: torch.Tensor, prediction: torch.Tensor, steps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean (N, C, h, w) and standard deviation (N, 1, 1, 1) of the latents after each one's step (N,)."""
        sigma, after = (_spread(self.sigmas[index]) for index in (steps, steps + 1))
        below = torch.where(sigma < 1, sigma, after)  # at pure noise the level has no bound
        variance = self.noise**2 * below / (1 - below) * (after > 0)  # of a unit of time
        span = after - sigma
        drift = prediction + variance / (2 * sigma) * (latents + (1 - sigma) * prediction)
        return latents + span * drift, (variance * -span).sqrt()


@dataclass(frozen=True, slots=True)
class DiffusionTransitions(_SamplerSteps):
    """Steps of DDIM, with the methods of `FlowTransitions`; `noise` is eta."""

    process: Diffusion
    signals: torch.Tensor  # (S + 1,), squared amplitudes of the signal, the last 1

    def compute(
        self, latents: torch.Tensor, prediction: torch.Tensor, steps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        signal, after = (_spread(self.signals[index]) for index in (steps, steps + 1))
        clean = self.process.predict_clean(latents, prediction, self.timesteps[steps])
        direction = (latents - signal.sqrt() * clean) / (1 - signal).sqrt()
        deviation = self.noise * ((1 - after) / (1 - signal) * (1 - signal / after)).sqrt()
        return after.sqrt() * clean + (1 - after - deviation**2).clamp(min=0).sqrt() * direction, deviation


Transitions = FlowTransitions | DiffusionTransitions


@dataclass(frozen=True, kw_only=True, slots=True)
class TransitionBuilder:
    """The steps in which latents of any size are sampled: a scheduler may shift its times by the number of tokens."""

    process: Flow | Diffusion
    scheduler: SchedulerMixin  # flows are sampled by Euler's steps, others by DDIM's, on its schedule
    steps: int
    noise: float
    patch: int  # latent cells on a side of a token

    def build(self, latents: torch.Tensor) -> Transitions:
        """Return the steps of latents (N, C, h, w), on their device."""
        tokens, device, is_flow = latents[0, 0].numel() // self.patch**2, latents.device, isinstance(self.process, Flow)
        scheduler = build_scheduler("euler" if is_flow else "ddim", self.scheduler)
        timesteps = set_steps(scheduler, self.steps, tokens=tokens, device=device).to(device)
        if isinstance(self.process, Flow):
            return FlowTransitions(timesteps, self.noise, self.process, scheduler.sigmas.to(device))
        signals = torch.cat([scheduler.alphas_cumprod.to(device)[timesteps], torch.ones(1, device=device)])
        return DiffusionTransitions(timesteps, self.noise, self.process, signals)


def compute_log_probability(latents: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return the log-density (N,) of latents under Gaussians, its MEAN over the latents' dimensions, as the paper's
    code has it: the ratio of two policies then does not depend on the latents' size."""
    density = -(((latents - mean) / deviation) ** 2) / 2 - deviation.log() - math.log(2 * math.pi) / 2
    return density.flatten(1).mean(dim=1)


def _spread(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]
