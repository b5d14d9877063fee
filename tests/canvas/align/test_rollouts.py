from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from canvas.align.objectives import get_condition
from canvas.align.policy import Policy, predict_noised
from canvas.align.prompts import PromptGroup
from canvas.align.rollouts import RolloutBatches, RolloutSampler
from canvas.align.spec import PretrainingSpec
from canvas.align.training import Aligner
from canvas.align.transitions import TransitionBuilder
from canvas.denoiser.batch import build_batches
from canvas.denoiser.process import build_process
from tests.canvas.align.parts import SCALE, perturb
from tests.canvas.align.subject import Log, RedReward, build_aligner, build_policy
from tests.canvas.denoiser.test_process import FLOW
from tests.components.generator_parts import write_random_shards


class CountingReward:
    """`RedReward` that keeps how many images it scored at once."""

    def __init__(self) -> None:
        self.images: list[int] = []

    def score(self, latents: torch.Tensor, group: PromptGroup, images: int) -> Mapping[str, torch.Tensor]:
        self.images.append(len(latents))
        return RedReward().score(latents, group, images)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rollouts")
    write_random_shards(root / "shards")
    return root / "shards"


def build(shards: Path, objective: str, *, own_step: bool = False) -> tuple[Aligner, Policy, RolloutBatches]:
    pretraining = PretrainingSpec(weight=1.0, own_step=own_step, captions=1, caption_dropout=0.0)
    aligner = build_aligner(shards, objective, "backdrop", 10, pretraining)
    policy, params = build_policy(aligner, "unet"), aligner.params
    transitions = None
    if params.ppo is not None:
        transitions = TransitionBuilder(
            process=build_process(FLOW),
            scheduler=aligner.scheduler,
            steps=params.rollouts.steps,
            noise=params.ppo.noise,
            patch=1,
        )
    batches = RolloutBatches(
        RolloutSampler(policy, aligner.scheduler, SCALE, params, transitions),
        aligner.data.train,
        RedReward(),
        build_batches(aligner.data.shards, aligner.data.pretraining_rows, aligner.data.masks, 8, 0),
        batch_size=8,
        seed=0,
        log=Log().metrics,
    )
    return aligner, policy, batches


@pytest.mark.parametrize("objective", ["nft", "ppo"])
def test_a_round_is_a_function_of_the_policy_and_its_number(shards: Path, objective: str) -> None:
    _, policy, batches = build(shards, objective)
    first, again, other = (batches.sample_round(number) for number in (3, 3, 4))
    for name, column in first.columns.items():
        assert torch.equal(again.columns[name], column)
    assert torch.equal(first.rewards["aesthetics"], again.rewards["aesthetics"])
    assert not torch.equal(first.rewards["aesthetics"], other.rewards["aesthetics"])
    perturb(policy)  # the current policy does not sample
    assert torch.equal(batches.sample_round(3).rewards["aesthetics"], first.rewards["aesthetics"])
    policy.update_state("old", 0.0)
    assert not torch.equal(batches.sample_round(3).rewards["aesthetics"], first.rewards["aesthetics"])


@pytest.mark.parametrize("objective", ["nft", "ppo"])
def test_a_round_is_sampled_some_prompts_at_a_time(shards: Path, objective: str) -> None:
    _, _, batches = build(shards, objective)
    whole, reward = batches.sample_round(3), CountingReward()
    params = replace(batches.params, rollouts=replace(batches.params.rollouts, batch_size=3))
    batches.params, batches.sampler, batches.reward = params, replace(batches.sampler, params=params), reward
    parts = batches.sample_round(3)
    assert reward.images == [2] * 4  # both of a prompt, and no more than a pass holds
    for name, column in whole.columns.items():
        torch.testing.assert_close(parts.columns[name], column, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.advantages["aesthetics"], whole.advantages["aesthetics"], rtol=1e-3, atol=1e-4)


def test_samples_of_ppo_are_guided_steps_of_the_policy_with_its_noise(shards: Path) -> None:
    aligner, policy, batches = build(shards, "ppo")
    builder, scale = batches.sampler.transitions, aligner.params.rollouts.guidance_scale
    assert builder is not None
    assert scale != 1
    batch = batches(0, 0, 1)
    transitions = builder.build(batch["before"])
    action = batch["action"]
    assert int(action.max()) < transitions.actions
    distances = {}
    for guidance in (scale, 1.0):
        with torch.no_grad():
            prediction = predict_noised(
                policy.denoiser, batch["before"], transitions.timesteps[action], get_condition(batch), guidance
            )
        mean, deviation = transitions.compute(batch["before"], prediction, action)
        noise = (batch["after"] - mean) / deviation
        distances[guidance] = float(noise.std())
    assert distances[scale] == pytest.approx(1, abs=0.05)


def test_the_old_policy_follows_at_the_first_step_of_a_round(shards: Path) -> None:
    _, policy, batches = build(shards, "nft", own_step=True)
    start = policy.copy_weights()

    def has_moved() -> bool:
        with policy.use_state("old"):
            return any(not torch.equal(weight, start[name]) for name, weight in policy.copy_weights().items())

    assert "advantages" not in batches(0, 0, 1)  # real pins have a step of their own
    perturb(policy)
    assert batches(1, 0, 1)["advantages"].shape == (8,)
    batches(2, 0, 1)
    assert not has_moved()
    batches(3, 0, 1)
    assert has_moved()


def test_every_image_of_a_round_is_trained_on_equally_often(shards: Path) -> None:
    _, _, batches = build(shards, "nft")
    updates = [batches(step, 0, 1)["clean"] for step in range(2)]  # 8 images, 8 a step
    assert torch.equal(*(torch.stack(sorted(update, key=lambda image: float(image.sum()))) for update in updates))
    assert not torch.equal(*updates)
