from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch

from canvas.align.objectives import (
    AlignmentObjective,
    Nft,
    Ppo,
    build_policy_objective,
    compute_clipped_loss,
    get_condition,
    noise_images,
)
from canvas.align.policy import predict_noised
from canvas.align.spec import NftSpec, PretrainingSpec, ReferenceSpec
from canvas.align.transitions import TransitionBuilder
from canvas.denoiser.process import build_process, build_training_scheduler
from canvas.denoiser.spec import DiffusionSpec
from tests.canvas.align.parts import (
    OBJECTIVES,
    build_batch,
    build_denoising,
    build_draws,
    build_params,
    build_policy,
    compute_gradients,
    perturb,
)
from tests.canvas.denoiser.test_process import EPS, FLOW, V

KINDS = pytest.mark.parametrize("kind", ["unet", "dit"])
INPAINT = pytest.mark.parametrize("inpaint", [True, False], ids=["backdrop", "base"])
Kind = Literal["unet", "dit"]


def build_objective(
    name: str, diffusion: DiffusionSpec = FLOW, *, inpaint: bool = True, **changes: object
) -> AlignmentObjective:
    params, process = build_params(name, **changes), build_process(diffusion)
    transitions = None
    if params.ppo is not None:
        transitions = TransitionBuilder(
            process=process,
            scheduler=build_training_scheduler(diffusion),
            steps=params.rollouts.steps,
            noise=params.ppo.noise,
            patch=1,
        )
    own = build_policy_objective(params, process, transitions)
    return AlignmentObjective(params, own, build_denoising(diffusion, inpaint=inpaint))


@KINDS
@INPAINT
@pytest.mark.parametrize("name", ["ppo", "awm"])
def test_ratio_is_exactly_one_at_the_first_step(kind: Kind, inpaint: bool, name: str) -> None:
    policy = build_policy(kind, inpaint=inpaint)
    perturb(policy)
    policy.update_state("old", 0.0)
    batch = build_batch(policy, inpaint=inpaint, advantages=torch.tensor([1.0, -2.0, 0.5, 3.0]))
    objective = build_objective(name, inpaint=inpaint).policy_objective
    (loss, outputs), _ = objective.compute_loss(policy, batch, build_draws())
    assert outputs["ratio_distance"] == 0
    assert outputs["clipped"] == 0
    assert float(loss.detach()) == pytest.approx(-2.5 / 4)
    assert any(gradient.any() for gradient in compute_gradients(policy, loss).values())
    perturb(policy, seed=8)
    (_, outputs), _ = objective.compute_loss(policy, batch, build_draws())
    assert outputs["ratio_distance"] > 0


@KINDS
@INPAINT
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_advantage_zero_gives_the_gradient_of_pretraining_alone(kind: Kind, inpaint: bool, name: str) -> None:
    policy = build_policy(kind, inpaint=inpaint)
    perturb(policy)
    policy.update_state("old", 0.0)
    batch = build_batch(policy, inpaint=inpaint, advantages=torch.zeros(4))
    objective, draws = build_objective(name, inpaint=inpaint), build_draws()
    if name != "ppo":  # the others draw timesteps and noise of their own first
        noise_images(build_process(FLOW), batch, draws)
    alone, _ = objective.denoising(policy.denoiser, batch, draws)
    expected = compute_gradients(policy, alone)
    loss, _ = objective(policy, batch, build_draws())
    gradients = compute_gradients(policy, loss)
    assert any(gradient.any() for gradient in expected.values())
    for weight, gradient in expected.items():
        torch.testing.assert_close(gradients[weight], gradient, rtol=1e-4, atol=1e-6)


@KINDS
@INPAINT
@pytest.mark.parametrize("diffusion", [FLOW, V], ids=["flow", "v"])
def test_gradient_of_nft_is_the_optimality_times_the_error(kind: Kind, inpaint: bool, diffusion: DiffusionSpec) -> None:
    """Where old equals current it is (2 r - 1) (v - target), up to a positive factor a sample."""
    policy = build_policy(kind, inpaint=inpaint)
    perturb(policy)
    policy.update_state("old", 0.0)
    advantages = torch.tensor([5.0, -5.0, 1.0, 0.0])
    batch = build_batch(policy, inpaint=inpaint, advantages=advantages)
    process = build_process(diffusion)
    nft = Nft(NftSpec(strength=0.7, clip=5.0, decay=0.5), process)
    (loss, _), output = nft.compute_loss(policy, batch, build_draws())
    (gradient,) = torch.autograd.grad(loss, output.prediction)
    error = (output.prediction - noise_images(process, batch, build_draws()).target).detach()
    for sample, advantage in enumerate(advantages.tolist()):
        own, residual = gradient[sample].flatten(), error[sample].flatten()
        factor = 2 * (advantage / 10 + 0.5) - 1
        if factor == 0:
            assert own.abs().max() <= 1e-7
        else:
            cosine = float(torch.nn.functional.cosine_similarity(own, residual, dim=0))
            assert cosine == pytest.approx(math.copysign(1, factor), abs=1e-4)
    opposite = build_batch(policy, inpaint=inpaint, advantages=torch.tensor([1.0, -1.0, 5.0, 0.0]))
    (loss, _), output = nft.compute_loss(policy, opposite, build_draws())
    (weaker,) = torch.autograd.grad(loss, output.prediction)
    torch.testing.assert_close(weaker[0], gradient[0] / 5, rtol=1e-3, atol=1e-7)  # (2 r - 1) is 1 and 0.2
    torch.testing.assert_close(weaker[1], gradient[1] / 5, rtol=1e-3, atol=1e-7)


def test_value_of_nft_ignores_the_reward_where_old_equals_current() -> None:
    policy = build_policy("unet")
    nft = Nft(NftSpec(strength=1.0, clip=5.0, decay=0.5), build_process(FLOW))
    good, bad = (
        float(nft.compute_loss(policy, build_batch(policy, advantages=values), build_draws())[0][0].detach())
        for values in (torch.full((4,), 5.0), torch.full((4,), -5.0))
    )
    assert good == pytest.approx(bad, rel=1e-5)


@pytest.mark.parametrize("diffusion", [FLOW, EPS, V], ids=["flow", "eps", "v"])
def test_steps_of_ppo_make_good_actions_likelier_and_bad_ones_less(diffusion: DiffusionSpec) -> None:
    policy = build_policy("unet")
    batch = build_batch(policy, advantages=torch.tensor([1.0, -1.0, 1.0, -1.0]))
    objective = build_objective("ppo", diffusion).policy_objective
    assert isinstance(objective, Ppo)
    wide = replace(objective, spec=replace(objective.spec, clip=10.0))
    optimizer = torch.optim.AdamW([weight for weight in policy.parameters() if weight.requires_grad], lr=1e-3)
    losses = []
    for _ in range(6):
        loss = wide.compute_loss(policy, batch, build_draws())[0][0]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_guidance_is_in_the_likelihood() -> None:
    policy = build_policy("unet")
    perturb(policy)
    batch = build_batch(policy, advantages=torch.ones(4))
    condition, timesteps = get_condition(batch), torch.full((4,), 500.0)
    plain, guided = (
        predict_noised(policy.denoiser, batch["before"], timesteps, condition, scale) for scale in (1.0, 3.0)
    )
    empty = replace(condition, states=torch.zeros_like(condition.states), pooled=torch.zeros_like(condition.pooled))
    without = predict_noised(policy.denoiser, batch["before"], timesteps, empty)
    torch.testing.assert_close(guided, without + 3 * (plain - without), rtol=1e-4, atol=1e-5)
    _, output = build_objective("ppo").policy_objective.compute_loss(policy, batch, build_draws())
    assert output.guidance_scale == 2.0


def test_clipped_ratios_gain_nothing() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    loss = compute_clipped_loss(ratio, advantages, 0.1)
    (gradient,) = torch.autograd.grad(loss, ratio)
    assert float(loss.detach()) == pytest.approx((-1.1 + 0.9 + 1.5 - 0.5) / 4)
    assert gradient.tolist() == [0, 0, 0.25, -0.25]


def test_pretraining_step_of_its_own_has_no_policy_in_it() -> None:
    policy = build_policy("unet")
    own = PretrainingSpec(weight=0.5, own_step=True, captions=1, caption_dropout=0.0)
    objective = build_objective("ppo", pretraining=own)
    batch = build_batch(policy, advantages=torch.ones(4))
    _, outputs = objective(policy, batch, build_draws())
    assert "denoising_loss" not in outputs
    del batch["advantages"]
    loss, outputs = objective(policy, batch, build_draws())
    assert outputs.keys() == {"denoising_loss"}
    assert float(loss.detach()) == pytest.approx(0.5 * float(outputs["denoising_loss"].detach()))


@pytest.mark.parametrize("reference", ["start", "average"])
def test_distance_to_a_reference_is_zero_at_it_and_pulls_back(reference: Literal["start", "average"]) -> None:
    policy = build_policy("unet")
    spec = ReferenceSpec(weight=2.0, policy=reference, decay=0.5)
    nothing = PretrainingSpec(weight=0.0, own_step=True, captions=1, caption_dropout=0.0)
    objective = build_objective("awm", reference=spec, pretraining=nothing)
    batch = build_batch(policy, advantages=torch.zeros(4))
    _, outputs = objective(policy, batch, build_draws())
    assert outputs["reference_distance"] == 0
    perturb(policy)
    loss, outputs = objective(policy, batch, build_draws())
    distance = float(outputs["reference_distance"].detach())
    assert distance > 0
    assert float(loss.detach()) == pytest.approx(2 * distance)
    optimizer = torch.optim.AdamW([weight for weight in policy.parameters() if weight.requires_grad], lr=1e-3)
    loss.backward()
    optimizer.step()
    _, outputs = objective(policy, batch, build_draws())
    assert float(outputs["reference_distance"].detach()) < distance


def test_old_and_current_share_no_weights_that_autocast_keeps() -> None:
    """It keeps a weight's copy by the tensor that it is, whose content is another policy's meanwhile."""
    policy = build_policy("unet")
    perturb(policy)
    batch = build_batch(policy, advantages=torch.ones(4))
    objective = build_objective("awm").policy_objective
    with torch.autocast("cpu", torch.bfloat16):
        (loss, outputs), _ = objective.compute_loss(policy, batch, build_draws())
    assert outputs["ratio_distance"] > 0
    assert any(gradient.any() for gradient in compute_gradients(policy, loss).values())
