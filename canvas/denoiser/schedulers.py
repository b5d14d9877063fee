"""Samplers by name (all of them diffusers' schedulers) and classifier-free guidance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SchedulerMixin,
)

SCHEDULERS = {
    "flow": {
        "euler": FlowMatchEulerDiscreteScheduler,
        "heun": FlowMatchHeunDiscreteScheduler,
        "dpm++": DPMSolverMultistepScheduler,
    },
    "diffusion": {
        "ddim": DDIMScheduler,
        "euler": EulerDiscreteScheduler,
        "dpm++": DPMSolverMultistepScheduler,
    },
}


def is_flow(scheduler: SchedulerMixin) -> bool:
    """Whether the scheduler samples a flow-matching denoiser."""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def load_scheduler(model: Path) -> SchedulerMixin:
    """Load the scheduler in `model`: its own directory, or that of a pipeline or a denoiser with scheduler/ in it."""
    folder = model / "scheduler" if (model / "scheduler").is_dir() else model
    classes = {kind.__name__: kind for group in SCHEDULERS.values() for kind in group.values()}
    name = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8"))["_class_name"]
    if name not in classes:
        raise ValueError(f"{folder} holds a {name}: the scheduler must be one of {', '.join(sorted(classes))}")
    scheduler = classes[name].from_pretrained(folder)
    if shifts_by_size(scheduler) and not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(f"{folder} holds a {name} with use_dynamic_shifting: only FlowMatchEulerDiscreteScheduler may")
    return scheduler


def build_scheduler(name: str, trained: SchedulerMixin) -> SchedulerMixin:
    """Build a scheduler of that name with the schedule that the denoiser was `trained` on; ValueError if none fits."""
    choices = SCHEDULERS["flow" if is_flow(trained) else "diffusion"]
    if name not in choices:
        raise ValueError(f"unknown scheduler {name!r}: this denoiser samples with {', '.join(choices)}")
    if shifts_by_size(trained) and name != "euler":
        raise ValueError(
            f"scheduler {name!r} does not shift by the image's size, as this denoiser's own does: use euler"
        )
    if is_flow(trained) and choices[name] is DPMSolverMultistepScheduler:
        return DPMSolverMultistepScheduler(
            num_train_timesteps=trained.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=trained.config.shift,
        )
    return choices[name].from_config(trained.config)


def check_droppable(scheduler: SchedulerMixin) -> None:
    """Raise ValueError for samplers between whose steps candidates cannot be dropped: they remember earlier ones in a
    way that `drop_candidates` does not know."""
    is_plain = isinstance(scheduler, FlowMatchEulerDiscreteScheduler | EulerDiscreteScheduler | DDIMScheduler)
    if not is_plain and not (is_flow(scheduler) and isinstance(scheduler, DPMSolverMultistepScheduler)):
        raise ValueError(
            f"candidates cannot be dropped early with {type(scheduler).__name__}, which remembers earlier steps: "
            "use the scheduler euler or ddim, or do not drop"
        )


def drop_candidates(scheduler: SchedulerMixin, rows: torch.Tensor) -> None:
    """Let a scheduler that has made some steps go on with these rows of its latents alone."""
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        scheduler.model_outputs = [None if output is None else output[rows] for output in scheduler.model_outputs]


def shifts_by_size(scheduler: SchedulerMixin) -> bool:
    """Whether the scheduler's times depend on the number of the image's tokens, as the public ones of Flux do."""
    return bool(scheduler.config.get("use_dynamic_shifting"))


def set_steps(
    scheduler: SchedulerMixin, steps: int, *, tokens: int, device: torch.device | str | None = None
) -> torch.Tensor:
    """Give the scheduler so many steps; return its timesteps, which may be more: Heun's are 2 steps - 1.

    A scheduler that shifts by size gets more noise for more tokens (Esser et al. 2024, section 5.3.2), from the even
    times and by the line through two sizes that stock pipelines of Flux take.
    """
    if not shifts_by_size(scheduler):
        scheduler.set_timesteps(steps, device=device)
    else:
        sigmas = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=compute_shift(scheduler, tokens), device=device)
    timesteps: torch.Tensor = scheduler.timesteps
    return timesteps


def compute_shift(scheduler: SchedulerMixin, tokens: int) -> float:
    """Return the logarithm of the shift for an image of so many tokens."""
    config = scheduler.config
    small, large = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (large - small)
    return float(tokens * slope + (config["base_shift"] - small * slope))


def predict_clean_latents(
    scheduler: SchedulerMixin, prediction: torch.Tensor, latents: torch.Tensor, step: int
) -> torch.Tensor:
    """What the clean latents would be if the denoiser were right at once: x0 of `latents` before `step` (from 0) and
    the guided `prediction` for them, both (N, C, h, w).

    Raises ValueError as `check_droppable` does.
    """
    check_droppable(scheduler)
    if is_flow(scheduler):
        return latents - scheduler.sigmas[step].to(latents) * prediction
    kind = scheduler.config.get("prediction_type")
    if isinstance(scheduler, EulerDiscreteScheduler):  # its latents are alpha * x0 + sigma * noise, divided by alpha
        sigma = scheduler.sigmas[step].to(latents)
        if kind == "epsilon":
            return latents - sigma * prediction
        return latents / (sigma**2 + 1) - prediction * sigma / (sigma**2 + 1).sqrt()
    signal = scheduler.alphas_cumprod[int(scheduler.timesteps[step])].to(latents)
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    if kind == "epsilon":
        return (latents - sigma * prediction) / alpha
    return alpha * latents - sigma * prediction


def apply_guidance(
    unconditional: torch.Tensor, conditional: torch.Tensor, scale: float, rescale: float = 0.0
) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022), optionally `rescale`d towards the conditional prediction's
    standard deviation, which guidance overshoots (Lin et al. 2023, eqs. 15 and 16). Predictions are (B, C, h, w)."""
    prediction = unconditional + scale * (conditional - unconditional)
    if rescale == 0:
        return prediction
    wanted = conditional.std(dim=(1, 2, 3), keepdim=True)
    matched = prediction * (wanted / prediction.std(dim=(1, 2, 3), keepdim=True))
    return rescale * matched + (1 - rescale) * prediction
