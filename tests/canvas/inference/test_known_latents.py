"""What is there before it is generated: how noisy it is, and when it is free."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.schedulers import build_scheduler, set_steps
from canvas.inference.known_latents import KnownLatents, add_noise
from tests.canvas.denoiser.test_process import FLOW


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++"])
def test_noise_is_that_of_the_step(name: str):
    scheduler = build_scheduler(name, build_training_scheduler(FLOW))
    scheduler.set_timesteps(5)
    clean, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    for step in range(len(scheduler.timesteps)):
        sigma = scheduler.sigmas[step]
        expected = (1 - sigma) * clean + sigma * noise
        torch.testing.assert_close(add_noise(scheduler, clean, noise, step), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(add_noise(scheduler, clean, noise, len(scheduler.timesteps)), clean)


def test_known_latents_are_free_in_the_last_steps_alone() -> None:
    """Held to the end, they come out clean; never held, they stay; half held, half."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    set_steps(scheduler, 4, tokens=16)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 4, 2, 3, generator=generator) for _ in range(2))
    strengths = torch.tensor([[[[0.0, 0.5, 1.0]] * 2]])
    seen: list[int] = []

    def watch(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        seen.append(step)
        return latents

    hold = KnownLatents(clean, strengths).hold(scheduler, lambda: noise.expand(2, -1, -1, -1), watch)
    for step, timestep in enumerate(scheduler.timesteps):
        mine = torch.full((2, 4, 2, 3), 7.0)
        after = hold(step, timestep, mine)
        noisy = add_noise(scheduler, clean, noise, step + 1)
        assert torch.equal(after[..., 0], noisy[..., 0].expand(2, -1, -1))
        assert torch.equal(after[..., 1], (noisy if step < 2 else mine[:1])[..., 1].expand(2, -1, -1))
        assert torch.equal(after[..., 2], mine[..., 2])
    assert torch.equal(after[..., 0], clean[..., 0].expand(2, -1, -1))
    assert seen == [0, 1, 2, 3]
