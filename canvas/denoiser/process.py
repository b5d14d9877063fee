"""How noise is added, what the denoiser predicts and how its errors are weighed: eps, v and flow.

Latents are (B, C, h, w), about unit variance; timesteps are (B,), from 0 (clean) to `train_timesteps`.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from canvas.denoiser.spec import DiffusionSpec
from canvas.train.draws import Draws


class Flow:
    """Rectified flow: x = (1 - sigma) clean + sigma noise, the target is their difference (Liu et al. 2022)."""

    def __init__(self, spec: DiffusionSpec) -> None:
        assert spec.time_mean is not None
        assert spec.time_std is not None
        assert spec.shift is not None
        self.mean, self.std, self.shift = spec.time_mean, spec.time_std, spec.shift
        self.train_timesteps = spec.train_timesteps

    def sample_timesteps(self, draws: Draws) -> torch.Tensor:
        """Return timesteps to train at, one a sample of `draws`."""
        sigma = torch.sigmoid(self.mean + self.std * draws.normal(len(draws)))
        return self.shift * sigma / (1 + (self.shift - 1) * sigma) * self.train_timesteps

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the latents at `timesteps`."""
        sigma = (timesteps / self.train_timesteps)[:, None, None, None]
        return (1 - sigma) * clean + sigma * noise

    def compute_target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what the denoiser is to predict for `add_noise(clean, noise, timesteps)`."""
        return noise - clean

    def predict_clean(self, latents: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the clean latents that a prediction for `latents` at `timesteps` says."""
        return latents - (timesteps / self.train_timesteps)[:, None, None, None] * prediction

    def compute_noise_levels(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return sigma at `timesteps`, (B,) in 0..1."""
        return timesteps / self.train_timesteps

    def compute_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the weights of the loss, (B,)."""
        return torch.ones_like(timesteps)


class Diffusion:
    """Variance-preserving diffusion on a discrete schedule, with the methods of `Flow`; predicts the noise (eps, Ho et
    al. 2020) or v (Salimans and Ho 2022)."""

    def __init__(self, spec: DiffusionSpec) -> None:
        self.prediction = spec.prediction
        self.gamma = spec.min_snr_gamma
        self.signal = build_training_scheduler(spec).alphas_cumprod.float()  # (train_timesteps,), squared

    def sample_timesteps(self, draws: Draws) -> torch.Tensor:
        return draws.integers(len(self.signal), len(draws))

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        alpha, sigma = self._compute_amplitudes(timesteps)
        return alpha * clean + sigma * noise

    def compute_target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self.prediction == "eps":
            return noise
        alpha, sigma = self._compute_amplitudes(timesteps)
        return alpha * noise - sigma * clean

    def predict_clean(self, latents: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        alpha, sigma = self._compute_amplitudes(timesteps)
        if self.prediction == "eps":
            return (latents - sigma * prediction) / alpha
        return alpha * latents - sigma * prediction

    def compute_noise_levels(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the noise's standard deviation over its sum with the signal's, (B,) in 0..1: a flow's sigma."""
        alpha, sigma = (amplitude[:, 0, 0, 0] for amplitude in self._compute_amplitudes(timesteps))
        return sigma / (alpha + sigma)

    def compute_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return min(SNR, gamma), a weight of the clean latents' error, as one of eps (/ SNR) or v (/ SNR + 1)."""
        signal = self.signal.to(timesteps.device)[timesteps]
        if self.gamma is None:
            return torch.ones_like(signal)
        ratio = signal / (1 - signal)
        return ratio.clamp(max=self.gamma) / (ratio if self.prediction == "eps" else ratio + 1)

    def _compute_amplitudes(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signal = self.signal.to(timesteps.device)[timesteps][:, None, None, None]
        return signal.sqrt(), (1 - signal).sqrt()


def build_process(spec: DiffusionSpec) -> Flow | Diffusion:
    """Build the process of `spec`."""
    return Flow(spec) if spec.prediction == "flow" else Diffusion(spec)


def build_training_scheduler(spec: DiffusionSpec) -> SchedulerMixin:
    """Build the diffusers scheduler that samples what `spec` trains; it is saved beside the denoiser."""
    if spec.prediction == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=spec.train_timesteps, shift=spec.shift)
    return DDIMScheduler(
        num_train_timesteps=spec.train_timesteps,
        beta_start=spec.beta_start,
        beta_end=spec.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="epsilon" if spec.prediction == "eps" else "v_prediction",
        rescale_betas_zero_snr=spec.zero_terminal_snr,
        timestep_spacing="trailing",  # starts at the last timestep, as zero terminal SNR asks
        clip_sample=False,
        set_alpha_to_one=True,
    )
