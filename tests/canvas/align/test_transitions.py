from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from canvas.align.transitions import TransitionBuilder, Transitions, compute_log_probability
from canvas.denoiser.process import build_process, build_training_scheduler
from canvas.denoiser.schedulers import set_steps
from canvas.denoiser.spec import DiffusionSpec
from tests.canvas.denoiser.test_process import ALL, EPS, FLOW, V

STEPS = 5  # of the 1000 as many each time: DDIMScheduler rounds others on its own
LATENTS = torch.zeros(1, 4, 8, 8)


def build_transitions(
    spec: DiffusionSpec, scheduler: SchedulerMixin, steps: int, noise: float, latents: torch.Tensor = LATENTS
) -> Transitions:
    builder = TransitionBuilder(process=build_process(spec), scheduler=scheduler, steps=steps, noise=noise, patch=2)
    return builder.build(latents)


@pytest.mark.parametrize("spec", [EPS, V], ids=["eps", "v"])
def test_steps_are_those_of_ddim_with_eta(spec: DiffusionSpec) -> None:
    scheduler = build_training_scheduler(spec)
    transitions = build_transitions(spec, scheduler, STEPS, 0.7)
    scheduler.set_timesteps(STEPS)
    assert isinstance(scheduler, DDIMScheduler)
    draw = torch.Generator().manual_seed(0)
    for step, timestep in enumerate(transitions.timesteps):
        latents, prediction, noise = (torch.randn(3, 4, 8, 8, generator=draw) for _ in range(3))
        expected = scheduler.step(prediction, int(timestep), latents, eta=0.7, variance_noise=noise, return_dict=False)[
            0
        ]
        mean, deviation = transitions.compute(latents, prediction, torch.full((3,), step))
        torch.testing.assert_close(mean + deviation * noise, expected, rtol=1e-4, atol=1e-4)
        assert (deviation > 0).all() == (step < transitions.actions)


def test_steps_of_a_flow_keep_its_marginals() -> None:
    """Latents of the flow are normal where data are 0, with deviation sigma, whatever noise the steps add."""
    torch.manual_seed(0)
    for noise in (0.5, 1.0):
        steps = 200
        transitions = build_transitions(FLOW, build_training_scheduler(FLOW), steps, noise)
        latents = torch.randn(64, 4, 8, 8)
        for step in range(steps // 2):
            sigma = transitions.sigmas[step]
            mean, deviation = transitions.compute(latents, latents / sigma, torch.full((64,), step))
            latents = mean + deviation * torch.randn_like(latents)
        assert float(latents.std()) == pytest.approx(float(transitions.sigmas[steps // 2]), rel=0.03)


@ALL
def test_the_last_step_adds_no_noise_and_a_perfect_denoiser_ends_at_the_data(spec: DiffusionSpec) -> None:
    process = build_process(spec)
    transitions = build_transitions(spec, build_training_scheduler(spec), STEPS, 1.0)
    draw = torch.Generator().manual_seed(0)
    clean, latents = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 4, 8, 8, generator=draw)
    for step, timestep in enumerate(transitions.timesteps):
        times = timestep.expand(2)
        if spec.prediction == "flow":
            prediction = (latents - clean) / (times / 1000)[:, None, None, None]
        else:
            signal = transitions.signals[step]
            noise = (latents - signal.sqrt() * clean) / (1 - signal).sqrt()
            prediction = process.compute_target(clean, noise, times)
        mean, deviation = transitions.compute(latents, prediction, torch.full((2,), step))
        latents = mean + deviation * torch.randn(latents.shape, generator=draw)
    torch.testing.assert_close(latents, clean, rtol=1e-3, atol=1e-3)
    assert not deviation.any()


@pytest.mark.parametrize("side", [8, 32])
def test_steps_are_shifted_by_the_number_of_tokens_as_the_sampler_shifts_them(side: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    transitions = build_transitions(FLOW, scheduler, STEPS, 1.0, torch.zeros(1, 4, side, side))
    expected = set_steps(scheduler, STEPS, tokens=side**2 // 4)
    assert torch.equal(transitions.timesteps, expected)
    assert torch.equal(transitions.sigmas, scheduler.sigmas)
    even = build_transitions(FLOW, build_training_scheduler(FLOW), STEPS, 1.0)
    assert not torch.allclose(transitions.timesteps, even.timesteps)


def test_log_probability_is_the_mean_over_the_dimensions() -> None:
    mean, deviation = torch.zeros(1, 4, 8, 8), torch.full((1, 1, 1, 1), 2.0)
    latents = torch.full((1, 4, 8, 8), 2.0)
    expected = -0.5 - math.log(2) - math.log(2 * math.pi) / 2
    assert float(compute_log_probability(latents, mean, deviation)) == pytest.approx(expected)
    larger = compute_log_probability(torch.full((1, 4, 16, 16), 2.0), torch.zeros(1, 4, 16, 16), deviation)
    assert float(larger) == pytest.approx(expected)
