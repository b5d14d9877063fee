"""Rounds of images sampled from the policy, as batches of a training.

A round's images are a function of the policy that samples them and of the round's number, so a run that was killed
within a round samples the same ones again: the policy is in its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import SchedulerMixin

from canvas.align.advantages import assign_weights, combine_advantages, compute_advantages
from canvas.align.objectives import AlignmentBatch
from canvas.align.policy import Policy, predict_noised
from canvas.align.prompts import PromptGroup, PromptSource
from canvas.align.spec import AlignParams
from canvas.align.transitions import TransitionBuilder, Transitions
from canvas.denoiser.batch import DenoiserBatch
from canvas.denoiser.sampling import LatentSampler, sample_noise
from canvas.shards.rows import BucketBatches, group_by_bucket
from canvas.train.data import Batches, select_batch_rows
from canvas.train.draws import Draws, mix_seed
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.train.state import eval_mode
from canvas.vae.model import LatentScale

ROUND_STREAM, NOISE_STREAM = 11, 12
"""Streams of random numbers beside those of the training itself."""


class LatentReward(Protocol):
    """Says how good images are that are still latents."""

    def score(self, latents: torch.Tensor, group: PromptGroup, images: int) -> Mapping[str, torch.Tensor]:
        """Return rewards (N,) by kind, higher is better, on the latents' device.

        Args:
            latents: Raw ones, (N, C, h, w).
            group: What they were sampled after.
            images: Of each prompt, one after the other.
        """


@dataclass(frozen=True, slots=True)
class Round:
    """Samples of a round, prompt by prompt, on the policy's device."""

    number: int
    columns: Mapping[str, torch.Tensor]  # of `AlignmentBatch`
    advantages: Mapping[str, torch.Tensor]  # by reward, one a sample
    rewards: Mapping[str, torch.Tensor]  # by reward, one an image


@dataclass(frozen=True, slots=True)
class RolloutSampler:
    """Samples images by the old policy, the one that the round began with."""

    policy: Policy
    scheduler: SchedulerMixin
    scale: LatentScale
    params: AlignParams
    transitions: TransitionBuilder | None  # of ppo alone; others sample without noise between

    def sample_images(self, group: PromptGroup, seeds: list[int]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return raw latents (N, C, h, w) of the old policy's images, and of ppo the steps that are trained on, T of
        each image: `before` and `after` (N, T, C, h, w) and `action` (N, T)."""
        spec, passes = self.params.rollouts, []
        for first in range(0, len(seeds), spec.batch_size):
            rows = slice(first, first + spec.batch_size)
            noise = sample_noise(group.latent_shape, seeds[rows], group.condition.states.device)
            with self.policy.use_state("old"):
                passes.append(self._sample_pass(noise, group.select(rows), seeds[rows]))
        latents, actions = zip(*passes, strict=True)
        return torch.cat(latents), {name: torch.cat([part[name] for part in actions]) for name in actions[0]}

    def _sample_pass(
        self, noise: torch.Tensor, group: PromptGroup, seeds: list[int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        spec, denoiser = self.params.rollouts, self.policy.denoiser
        if self.transitions is None or self.params.ppo is None:
            sampler = LatentSampler(
                denoiser=denoiser,
                scheduler=self.scheduler,
                scale=self.scale,
                steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                precision=spec.precision,
            )
            return sampler.sample(noise, group.condition), {}
        device, dtype = noise.device, choose_autocast_dtype(noise.device, spec.precision)
        with eval_mode(denoiser), autocast(dtype, device):
            transitions = self.transitions.build(noise)
            return self._follow_transitions(transitions, noise, group, seeds, self.params.ppo.timesteps)

    def _follow_transitions(
        self, transitions: Transitions, latents: torch.Tensor, group: PromptGroup, seeds: list[int], kept: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device, count = latents.device, len(latents)
        draws = [Draws(seed, 0, 0, 1, device, stream=NOISE_STREAM) for seed in seeds]
        order = torch.cat([draw.uniform(1, transitions.actions) for draw in draws]).argsort(dim=1)
        chosen = order[:, :kept].sort(dim=1).values  # (N, T)
        before, after = (latents.new_zeros(count, kept, *latents.shape[1:]) for _ in range(2))
        for step, timestep in enumerate(transitions.timesteps):
            prediction = predict_noised(
                self.policy.denoiser,
                latents,
                timestep.expand(count),
                group.condition,
                self.params.rollouts.guidance_scale,
            )
            steps = torch.full((count,), step, device=device)
            mean, deviation = transitions.compute(latents, prediction, steps)
            noise = torch.cat([draw.normal(1, *latents.shape[1:]) for draw in draws])
            following = mean + deviation * noise
            image, place = (chosen == step).nonzero(as_tuple=True)
            before[image, place], after[image, place] = latents[image], following[image]
            latents = following
        return self.scale.denormalize(latents), {"before": before, "after": after, "action": chosen}


class RolloutBatches:
    """The batches of an alignment: real pins, and samples of the round's images with their advantages.

    At a round's first step the policy that samples follows the current one; the round's images are sampled, scored and
    kept for its updates.
    """

    def __init__(
        self,
        sampler: RolloutSampler,
        source: PromptSource,
        reward: LatentReward,
        pretraining: Batches[DenoiserBatch],
        *,
        batch_size: int,
        seed: int,
        log: Callable[[Mapping[str, float], int], None],
    ) -> None:
        self.sampler, self.source, self.reward, self.pretraining = sampler, source, reward, pretraining
        self.batch_size, self.seed, self.log = batch_size, seed, log
        self.params = sampler.params
        buckets = group_by_bucket(source.rows)
        self._rows = BucketBatches(_read_rows, buckets, self.params.rollouts.groups, mix_seed(seed, ROUND_STREAM) >> 32)
        self._round: Round | None = None

    def __call__(self, step: int, rank: int, world: int) -> AlignmentBatch:
        number, place = divmod(step, self.params.steps_per_round)
        batch = AlignmentBatch(**self.pretraining(step, rank, world))  # type: ignore[typeddict-item]
        if self._round is None or self._round.number != number:
            if place == 0:
                self._update_states()
            self._round = None  # its samples make room for the next ones
            self._round = self.sample_round(number)
            means = {f"reward_{kind}": float(values.mean()) for kind, values in self._round.rewards.items()}
            self.log(means, number * self.params.steps_per_round)
        update = place - self.params.pretraining.own_step
        if update < 0:
            return batch
        weights = assign_weights(self.params.terms, number * self.params.rollouts.updates + update)
        advantages = combine_advantages(self._round.advantages, weights)
        rows = select_batch_rows(
            len(advantages), self.batch_size, mix_seed(self.seed, ROUND_STREAM, number) >> 32, update, rank, world
        )
        index = torch.from_numpy(rows).to(advantages.device)
        columns = {name: column[index] for name, column in self._round.columns.items()}
        return AlignmentBatch(**batch, **columns, advantages=advantages[index])  # type: ignore[typeddict-item]

    def sample_round(self, number: int) -> Round:
        """Sample, score and compare the images of round `number`, by the old policy."""
        params, spec, rows = self.params, self.params.rollouts, self._rows(number, 0, 1)["rows"]
        together = max(1, spec.batch_size // spec.images)  # prompts of a pass: of others no pixels are held
        passes = [
            self._sample_prompts(rows[first : first + together], number, first * spec.images)
            for first in range(0, len(rows), together)
        ]
        columns, rewards = (
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*passes, strict=True)
        )
        advantages = {
            kind: compute_advantages(values.float(), group=spec.images, baseline=params.baseline, clip=params.clip)
            for kind, values in rewards.items()
        }
        if params.ppo is not None:
            advantages = {kind: values.repeat_interleave(params.ppo.timesteps) for kind, values in advantages.items()}
        return Round(number, columns, advantages, rewards)

    def _sample_prompts(
        self, rows: Sequence[int], number: int, first: int
    ) -> tuple[dict[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Return columns of samples and rewards of images of some prompts of a round, whose first image is its
        `first`."""
        images, device = self.params.rollouts.images, next(self.sampler.policy.parameters()).device
        group = self.source.read(rows, images, device)
        places = range(first, first + len(group.pin_ids))
        latents, actions = self.sampler.sample_images(
            group, [mix_seed(self.seed, NOISE_STREAM, number, image) for image in places]
        )
        rewards = self.reward.score(latents, group, images)
        condition = group.condition
        columns = {"states": condition.states, "pooled": condition.pooled, "frames": condition.sizes}
        if condition.hole is not None and condition.masked_latents is not None:
            columns |= {"unknown": condition.hole, "known": condition.masked_latents}
        if actions:
            kept = actions["action"].shape[1]
            columns = {name: column.repeat_interleave(kept, dim=0) for name, column in columns.items()}
            columns |= {name: column.flatten(0, 1) for name, column in actions.items()}
        else:
            columns["clean"] = self.sampler.scale.normalize(latents)
        return columns, rewards

    def _update_states(self) -> None:
        policy, params = self.sampler.policy, self.params
        policy.update_state("old", params.old_decay)
        policy.update_state("average", params.reference.decay)


def _read_rows(rows: Sequence[int]) -> Mapping[str, list[int]]:
    return {"rows": list(rows)}
