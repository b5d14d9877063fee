"""What is trained to be denoised, and how: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionSpec:
    """The noising process. Values of the other family of processes must be null: they would be ignored."""

    prediction: Literal["eps", "v", "flow"]
    train_timesteps: int
    # flow (Esser et al. 2024): sigma = sigmoid(time_mean + time_std * normal), then shifted
    time_mean: float | None
    time_std: float | None
    shift: float | None  # > 1: more noise; for bigger latents (their eq. 23)
    # eps, v
    beta_start: float | None
    beta_end: float | None
    zero_terminal_snr: bool | None  # Lin et al. 2023, Algorithm 1
    min_snr_gamma: float | None  # Hang et al. 2023; null: unweighted

    def __post_init__(self) -> None:
        of_flow = ("time_mean", "time_std", "shift")
        of_betas = ("beta_start", "beta_end", "zero_terminal_snr")
        flow = self.prediction == "flow"
        for name in of_flow if flow else of_betas:
            if getattr(self, name) is None:
                raise ValueError(f"diffusion.{name} is null: prediction {self.prediction!r} needs it")
        for name in (*of_betas, "min_snr_gamma") if flow else of_flow:
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"diffusion.{name} is {value}, but prediction {self.prediction!r} ignores it: use null"
                )
        if self.prediction == "eps" and self.zero_terminal_snr:
            raise ValueError(
                "diffusion.prediction eps cannot learn from pure noise: use v or flow, or zero_terminal_snr: false"
            )
