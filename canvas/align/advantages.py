"""From rewards to advantages: how much better an image is than others, and which reward counts in which step.

N images lie prompt by prompt, `group` of each prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from canvas.align.spec import RewardTerm

TURN_CYCLE = 1000
"""Steps after which the order of turns repeats."""

MIN_DEVIATION = 1e-6
"""Deviation of rewards below which they are all the same: nothing is better than the rest."""


def compute_advantages(
    rewards: torch.Tensor, *, group: int, baseline: Literal["batch", "group"], clip: float
) -> torch.Tensor:
    """Return advantages (N,) of rewards (N,): over the mean of the batch or of each group, in deviations, clipped.

    The deviation is the round's in both cases: where all images of a prompt are alike, that of its group would blow
    noise up to a signal.
    """
    mean = rewards.mean() if baseline == "batch" else rewards.view(-1, group).mean(dim=1).repeat_interleave(group)
    centred = rewards - mean
    deviation = centred.square().mean().sqrt()
    if deviation < MIN_DEVIATION:
        return torch.zeros_like(rewards)
    return (centred / deviation).clamp(-clip, clip)


def compute_nearest_distances(embeddings: torch.Tensor, group: int) -> torch.Tensor:
    """Return for each image the cosine distance (N,) to its nearest neighbour in its group, of unit vectors (N, E)."""
    vectors = embeddings.view(-1, group, embeddings.shape[1])
    cosines = vectors @ vectors.mT
    cosines = cosines.masked_fill(torch.eye(group, dtype=torch.bool, device=cosines.device), -torch.inf)
    return 1 - cosines.amax(dim=2).flatten()


def compute_parity_credits(chances: torch.Tensor, group: int) -> torch.Tensor:
    """Return each image's part (N,) in its group's parity: that of the group less that of the group without it.

    `chances` (N, V) are of an attribute's values, of each image. A group's parity is minus the squared distance of
    their mean from equal shares; 0 at best (statistical parity, Zhang et al. 2024, section 3.3).
    """
    by_group = chances.view(-1, group, chances.shape[1])
    total = by_group.sum(dim=1, keepdim=True)
    without = (total - by_group) / (group - 1)
    return (_compute_parity(total / group) - _compute_parity(without)).flatten()


def _compute_parity(shares: torch.Tensor) -> torch.Tensor:
    return -(shares - 1 / shares.shape[-1]).square().sum(dim=-1)


def assign_weights(terms: Sequence[RewardTerm], update: int) -> tuple[float, ...]:
    """Return the weight of each reward in optimizer step `update` of the whole run, 0 where another has its turn.

    Rewards of share 1 count in every step. Those below take turns in their proportions (multi-task as in Zhang et al.
    2024): the one whose count lags most behind its share is next. A single reward with turns has a share of 1.
    """
    counts = [0] * len(terms)
    turn: int | None = None
    if any(term.share < 1 for term in terms):
        cycle = update % TURN_CYCLE
        for step in range(cycle + 1):
            lags = [
                (term.share * (step + 1) - count) if term.share < 1 else -1.0
                for term, count in zip(terms, counts, strict=True)
            ]
            turn = max(range(len(terms)), key=lags.__getitem__)
            counts[turn] += 1
    return tuple(term.weight if term.share == 1 or place == turn else 0.0 for place, term in enumerate(terms))


def combine_advantages(advantages: Mapping[str, torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return the weighted sum (N,) of advantages by reward, over the sum of the weights that count."""
    total = torch.stack([weight * values for weight, values in zip(weights, advantages.values(), strict=True)]).sum(0)
    return total / sum(weights)
