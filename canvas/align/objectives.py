"""What the policy learns from a round's images: ppo, awm or nft, beside the denoising loss on real pins.

B samples. Old and current predictions are computed on the same inputs, one after the other, so that they are equal to
the bit while the weights are: what the sampler computed in other batches, or with cached projections, rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, Protocol

import torch

from canvas.align.policy import Policy, predict_noised
from canvas.align.spec import AlignParams, AwmSpec, NftSpec, PpoSpec
from canvas.align.transitions import TransitionBuilder, compute_log_probability
from canvas.denoiser.batch import DenoiserBatch
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.process import Diffusion, Flow
from canvas.denoiser.sampling import Condition
from canvas.train.draws import Draws

SMALLEST_ERROR = 1e-5  # by which nft's losses are divided at most

Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""A scalar and what else to log."""


class AlignmentBatch(DenoiserBatch):
    """Real pins for the denoising loss and, but in its own step, samples of the round's images."""

    advantages: NotRequired[torch.Tensor]  # (B,)
    states: NotRequired[torch.Tensor]  # (B, L, D), the prompt as the images were sampled after it
    pooled: NotRequired[torch.Tensor]  # (B, P)
    frames: NotRequired[torch.Tensor]  # (B, 6)
    known: NotRequired[torch.Tensor]  # (B, C, h, w), normalised latents of the product alone; inpainting
    unknown: NotRequired[torch.Tensor]  # (B, K, h, w), its hole
    clean: NotRequired[torch.Tensor]  # (B, C, h, w), normalised latents of the image; awm, nft
    before: NotRequired[torch.Tensor]  # (B, C, h, w), latents before a step of the sampler; ppo
    after: NotRequired[torch.Tensor]  # (B, C, h, w), and after it
    action: NotRequired[torch.Tensor]  # int64 (B,), which step


class PolicyObjective(Protocol):
    """A way to learn from advantages."""

    def compute_loss(self, policy: Policy, batch: AlignmentBatch, draws: Draws) -> tuple[Loss, PolicyOutput]:
        """Return the loss, and where and what the policy predicted, from which its distance to others is computed."""


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """Inputs of the policy and its prediction."""

    latents: torch.Tensor  # (B, C, h, w), noised
    timesteps: torch.Tensor  # (B,)
    prediction: torch.Tensor  # (B, C, h, w)
    guidance_scale: float


def get_condition(batch: AlignmentBatch) -> Condition:
    """Return the condition of a batch's images."""
    return Condition(
        states=batch["states"],
        pooled=batch["pooled"],
        sizes=batch["frames"],
        hole=batch.get("unknown"),
        masked_latents=batch.get("known"),
    )


@dataclass(frozen=True, slots=True)
class Ppo:
    """Clipped policy gradient over the sampler's steps, guidance in the likelihood as in the images."""

    spec: PpoSpec
    transitions: TransitionBuilder
    guidance_scale: float

    def compute_loss(self, policy: Policy, batch: AlignmentBatch, draws: Draws) -> tuple[Loss, PolicyOutput]:
        condition, latents, action = get_condition(batch), batch["before"], batch["action"]
        transitions = self.transitions.build(latents)
        timesteps = transitions.timesteps[action]

        def predict() -> tuple[torch.Tensor, torch.Tensor]:
            prediction = predict_noised(policy.denoiser, latents, timesteps, condition, self.guidance_scale)
            mean, deviation = transitions.compute(latents, prediction, action)
            return prediction, compute_log_probability(batch["after"], mean, deviation)

        with policy.use_state("old"):
            _, old = predict()
        prediction, current = predict()
        ratio, advantages = (current - old).exp(), batch["advantages"]
        loss = compute_clipped_loss(ratio, advantages, self.spec.clip)
        return (loss, describe_ratio(ratio, self.spec.clip)), PolicyOutput(
            latents, timesteps, prediction, self.guidance_scale
        )


@dataclass(frozen=True, slots=True)
class Awm:
    """Advantage-weighted matching: ratios of exp(-(t / p) e^p), e the mean squared error of the denoising loss."""

    spec: AwmSpec
    process: Flow | Diffusion

    def compute_loss(self, policy: Policy, batch: AlignmentBatch, draws: Draws) -> tuple[Loss, PolicyOutput]:
        noised, condition = noise_images(self.process, batch, draws), get_condition(batch)
        level = self.process.compute_noise_levels(noised.timesteps)

        def compute_likelihood(prediction: torch.Tensor) -> torch.Tensor:
            error = (prediction - noised.target).square().flatten(1).mean(dim=1)
            return -level / self.spec.power * error.clamp(min=SMALLEST_ERROR) ** self.spec.power

        with policy.use_state("old"):
            old = predict_noised(policy.denoiser, noised.latents, noised.timesteps, condition)
        prediction = predict_noised(policy.denoiser, noised.latents, noised.timesteps, condition)
        ratio = (compute_likelihood(prediction) - compute_likelihood(old)).exp()
        loss = compute_clipped_loss(ratio, batch["advantages"], self.spec.clip)
        return (loss, describe_ratio(ratio, self.spec.clip)), PolicyOutput(
            noised.latents, noised.timesteps, prediction, 1.0
        )


@dataclass(frozen=True, slots=True)
class Nft:
    """DiffusionNFT's loss: errors of the clean latents that a prediction moved towards the current policy (positive)
    and away from it (negative) says, weighed by how good the image is (Zheng et al. 2025, eq. 6)."""

    spec: NftSpec
    process: Flow | Diffusion

    def compute_loss(self, policy: Policy, batch: AlignmentBatch, draws: Draws) -> tuple[Loss, PolicyOutput]:
        noised, condition, beta = noise_images(self.process, batch, draws), get_condition(batch), self.spec.strength
        with policy.use_state("old"):
            old = predict_noised(policy.denoiser, noised.latents, noised.timesteps, condition)
        prediction = predict_noised(policy.denoiser, noised.latents, noised.timesteps, condition)
        optimality = (batch["advantages"] / self.spec.clip).clamp(-1, 1) / 2 + 0.5
        positive, negative = (
            self._compute_error(noised, batch["clean"], guess)
            for guess in (
                beta * prediction + (1 - beta) * old,
                (1 + beta) * old - beta * prediction,
            )
        )
        loss = ((optimality * positive + (1 - optimality) * negative) / beta).mean()
        return (loss, {"optimality": optimality.mean()}), PolicyOutput(
            noised.latents, noised.timesteps, prediction, 1.0
        )

    def _compute_error(self, noised: NoisedImages, clean: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
        """Return the squared error (B,) of the clean latents over their mean absolute error, which gets no gradient."""
        difference = self.process.predict_clean(noised.latents, guess, noised.timesteps) - clean
        scale = difference.detach().abs().flatten(1).mean(dim=1).clamp(min=SMALLEST_ERROR)
        return difference.square().flatten(1).mean(dim=1) / scale


@dataclass(frozen=True, slots=True)
class NoisedImages:
    """Images with noise, at timesteps of the training's distribution."""

    latents: torch.Tensor  # (B, C, h, w)
    timesteps: torch.Tensor  # (B,)
    target: torch.Tensor  # (B, C, h, w)


def noise_images(process: Flow | Diffusion, batch: AlignmentBatch, draws: Draws) -> NoisedImages:
    """Noise a batch's images; no trajectory is needed, only what the sampler ended with."""
    clean, timesteps = batch["clean"], process.sample_timesteps(draws)
    noise = draws.normal(*clean.shape)
    return NoisedImages(
        process.add_noise(clean, noise, timesteps), timesteps, process.compute_target(clean, noise, timesteps)
    )


def compute_clipped_loss(ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """Return PPO's loss (Schulman et al. 2017, eq. 7): nothing is gained by moving a ratio beyond 1 +- clip."""
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()


def describe_ratio(ratio: torch.Tensor, clip: float) -> dict[str, torch.Tensor]:
    """Return what to log of ratios."""
    distance = (ratio - 1).abs()
    return {"ratio_distance": distance.mean(), "clipped": (distance > clip).float().mean()}


def build_policy_objective(
    params: AlignParams, process: Flow | Diffusion, transitions: TransitionBuilder | None
) -> PolicyObjective:
    """Build the objective that params name; `transitions` are those that images are sampled by, of ppo alone."""
    if params.ppo is not None:
        assert transitions is not None
        return Ppo(params.ppo, transitions, params.rollouts.guidance_scale)
    if params.awm is not None:
        return Awm(params.awm, process)
    assert params.nft is not None
    return Nft(params.nft, process)


@dataclass(frozen=True, slots=True)
class AlignmentObjective:
    """The loss of a step: of a real batch alone in its own step; else the policy's, with its distance to a reference
    and, where that has no step of its own, the denoising loss."""

    params: AlignParams
    policy_objective: PolicyObjective
    denoising: DenoisingObjective

    def __call__(
        self, policy: Policy, batch: AlignmentBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        spec, reference = self.params.pretraining, self.params.reference
        loss = batch["moments"].new_zeros((), dtype=torch.float32)
        outputs: dict[str, torch.Tensor] = {}
        if "advantages" in batch:
            (loss, outputs), state = self.policy_objective.compute_loss(policy, batch, draws)
            outputs["policy_loss"] = loss.detach()
            if reference.weight:
                distance = compute_distance(policy, state, get_condition(batch), reference.policy)
                loss, outputs["reference_distance"] = loss + reference.weight * distance, distance
        if "advantages" not in batch or not spec.own_step:
            denoising, _ = self.denoising(policy.denoiser, batch, draws)
            loss, outputs["denoising_loss"] = loss + spec.weight * denoising, denoising
        return loss, outputs


def compute_distance(policy: Policy, state: PolicyOutput, condition: Condition, reference: str) -> torch.Tensor:
    """Return the mean squared difference of the policy's prediction from that of a reference on the same input."""
    with policy.use_state("start" if reference == "start" else "average"):
        other = predict_noised(policy.denoiser, state.latents, state.timesteps, condition, state.guidance_scale)
    return (state.prediction - other).square().mean()
