from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from canvas.align.advantages import (
    assign_weights,
    combine_advantages,
    compute_advantages,
    compute_nearest_distances,
    compute_parity_credits,
)
from canvas.align.spec import RewardTerm


def test_advantages_are_deviations_from_the_mean_of_batch_or_group() -> None:
    rewards = torch.tensor([1.0, 3.0, 11.0, 13.0])
    batch = compute_advantages(rewards, group=2, baseline="batch", clip=10.0)
    assert batch.mean() == pytest.approx(0, abs=1e-6)
    assert batch.square().mean() == pytest.approx(1, rel=1e-5)
    assert batch[0] < batch[1] < 0 < batch[2] < batch[3]
    group = compute_advantages(rewards, group=2, baseline="group", clip=10.0)
    torch.testing.assert_close(group, torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert compute_advantages(rewards, group=2, baseline="batch", clip=0.5).abs().max() == 0.5


def test_rewards_that_are_all_the_same_say_nothing() -> None:
    rewards = torch.tensor([0.3, 0.3, 0.7, 0.7])
    assert not compute_advantages(rewards, group=2, baseline="group", clip=10.0).any()
    assert compute_advantages(rewards, group=2, baseline="batch", clip=10.0).any()


def test_the_nearest_image_of_the_same_prompt_counts() -> None:
    same, other, opposite = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])
    distances = compute_nearest_distances(torch.stack([same, same, other, opposite, opposite, same]), group=3)
    torch.testing.assert_close(distances, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 2.0]))


def test_an_image_of_a_rare_value_gets_the_credit_of_parity() -> None:
    chances = F.one_hot(torch.tensor([0, 0, 0, 1, 0, 1, 0, 1]), 2).float()
    credits = compute_parity_credits(chances, group=4)
    assert credits[3] > 0 > credits[0] == credits[1] == credits[2]
    parity = -2 * (0.75 - 0.5) ** 2
    assert credits[3] == pytest.approx(parity + 2 * 0.5**2)  # without it all are of one value
    torch.testing.assert_close(credits[4:], torch.full((4,), 2 * (2 / 3 - 0.5) ** 2))  # none is more than it should be


def test_rewards_with_turns_count_one_after_the_other() -> None:
    terms = [RewardTerm("overall", 2.0, 1.0), RewardTerm("diversity", 1.0, 0.25), RewardTerm("prompt", 3.0, 0.75)]
    weights = [assign_weights(terms, update) for update in range(8)]
    assert Counter(weights) == {(2.0, 1.0, 0.0): 2, (2.0, 0.0, 3.0): 6}
    assert weights[:4] == weights[4:]
    assert assign_weights(terms[:1], 5) == (2.0,)


def test_weighted_advantages_keep_their_scale() -> None:
    advantages = {"overall": torch.tensor([1.0, -1.0]), "prompt": torch.tensor([1.0, 3.0])}
    torch.testing.assert_close(combine_advantages(advantages, (1.0, 3.0)), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(combine_advantages(advantages, (0.0, 3.0)), advantages["prompt"])
