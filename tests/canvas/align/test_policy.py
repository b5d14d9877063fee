from __future__ import annotations

import torch

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
