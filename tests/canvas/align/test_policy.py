from __future__ import annotations

import torch

from canvas.align.policy import predict_noised
from canvas.denoiser.sampling import Condition
from tests.canvas import tiny
from tests.canvas.align.parts import build_policy, perturb


def test_states_take_the_weights_place_and_leave_it() -> None:
    policy = build_policy("unet")
    start = policy.copy_weights()
    perturb(policy)
    moved = policy.copy_weights()
    with policy.use_state("old"):
        assert all(torch.equal(policy.copy_weights()[name], start[name]) for name in start)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert all(torch.equal(policy.copy_weights()[name], moved[name]) for name in moved)
    with policy.use_state("start"):
        assert not any(weight.any() for weight in policy.copy_weights().values())


def test_states_follow_by_their_decay() -> None:
    policy = build_policy("unet")
    start = policy.copy_weights()
    perturb(policy)
    moved = policy.copy_weights()
    policy.update_state("average", 0.75)
    with policy.use_state("average"):
        for name, weight in policy.copy_weights().items():
            torch.testing.assert_close(weight, 0.75 * start[name] + 0.25 * moved[name])
    policy.update_state("old", 0.0)
    with policy.use_state("old"):
        assert all(torch.equal(weight, moved[name]) for name, weight in policy.copy_weights().items())
    policy.load_weights(start)
    assert all(torch.equal(weight, start[name]) for name, weight in policy.copy_weights().items())


def test_a_checkpoint_holds_every_state() -> None:
    policy = build_policy("dit")
    trained = sum(weight.requires_grad for weight in policy.parameters())
    states = [name for name in policy.state_dict() if name.startswith(("old_", "average_"))]
    assert len(states) == 2 * trained > 0


def test_a_network_that_was_distilled_with_guidance_reads_the_scale_in_one_pass() -> None:
    dit = tiny.transformer()
    distilled = type(dit).from_config({**dit.config, "guidance_embeds": True}).eval()
    latents, timesteps = torch.randn(2, 4, 8, 8), torch.full((2,), 500.0)
    condition = Condition(
        states=torch.randn(2, 7, tiny.TEXT_WIDTH), pooled=torch.randn(2, tiny.POOLED_WIDTH), sizes=torch.zeros(2, 6)
    )
    passes: list[int] = []
    distilled.register_forward_pre_hook(
        lambda network, args, kwargs: passes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    with torch.no_grad():
        plain, guided = (predict_noised(distilled, latents, timesteps, condition, scale) for scale in (1.0, 4.0))
    assert passes == [2, 2]
    assert not torch.equal(plain, guided)
