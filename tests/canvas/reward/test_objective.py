from __future__ import annotations

import math

import pytest
import torch

from canvas.reward.batches import ComparisonBatches
from canvas.reward.comparisons import sample_real_comparisons
from canvas.reward.objective import RewardObjective, absolute_loss, background_loss, compute_logits, pairwise_loss
from canvas.reward.spec import HEADS
from canvas.train.draws import Draws
from tests.canvas.reward.test_comparisons import TOKENIZE, scenes, views
from tests.canvas.reward.test_model import build_tiny_reward

NAN = math.nan


def test_the_pairwise_loss_is_that_of_bradley_and_terry():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert pairwise_loss(first, second, torch.tensor([[1.0, NAN]])).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert pairwise_loss(first, second, torch.tensor([[0.0, NAN]])).item() == pytest.approx(math.log(1 + math.exp(1)))
    assert pairwise_loss(first, second, torch.tensor([[NAN, 0.5]])).item() == pytest.approx(math.log(2))


def test_what_is_not_known_counts_for_nothing():
    logits = torch.tensor([[3.0, -50.0]], requires_grad=True)
    loss = absolute_loss(logits, torch.tensor([[1.0, NAN]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert absolute_loss(logits, torch.full((1, 2), NAN)).item() == 0


def test_each_background_is_shown_or_not_and_wordless_ones_teach_nothing():
    offered = torch.tensor([[0, 0], [3, 1], [3, 2]])
    matches = torch.tensor([[9.0, 2.0, 0.0], [9.0, 1.0, -1.0], [5.0, 7.0, -7.0]], requires_grad=True)
    loss = background_loss(matches, offered, torch.tensor([1, 2, 0]))
    first = math.log(1 + math.exp(-2)) + math.log(2)
    assert loss.item() == pytest.approx((first + 2 * math.log(1 + math.exp(1))) / 2)
    loss.backward()
    assert matches.grad is not None
    assert matches.grad[2].abs().sum() == 0
    assert matches.grad[:, 0].abs().sum() == 0
    assert background_loss(matches, offered, torch.tensor([0, 0, 0])).item() == 0
    more = torch.cat([matches, torch.full((3, 1), -40.0)], dim=1)  # another background that none shows
    again = background_loss(more, torch.tensor([[0, 0], [3, 1], [3, 2], [3, 3]]), torch.tensor([1, 2, 0]))
    assert again.item() == pytest.approx(loss.item())


def test_both_images_swapped_give_the_same_loss():
    batch = ComparisonBatches(
        sample_real_comparisons(views(), "recoloured", 4, 0), views(), scenes(), tokenize=TOKENIZE, batch_size=4, seed=0
    )(0, 0, 1)
    swapped = {
        **batch,
        "first": batch["second"],
        "second": batch["first"],
        "first_good": batch["second_good"],
        "first_background": batch["second_background"],
        "second_background": batch["first_background"],
        "second_good": batch["first_good"],
        "preferred": 1 - torch.as_tensor(batch["preferred"]),
    }
    model = build_tiny_reward()
    model.register_to_config(image_size=64)
    losses = [RewardObjective(0.5, 0.5)(model, one, Draws(0, 0, 0, 4))[0].item() for one in (batch, swapped)]
    assert losses[0] == pytest.approx(losses[1])


def test_it_learns_which_product_was_recoloured():
    model = build_tiny_reward().train()
    pairs = sample_real_comparisons(views(16), "recoloured", 16, seed=0)
    batches = ComparisonBatches(pairs, views(16), scenes(), tokenize=TOKENIZE, batch_size=16, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(25):
        loss, _ = RewardObjective(0.5, 0.5)(model, batches(step, 0, 1), Draws(0, step, 0, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    other = sample_real_comparisons(views(16), "recoloured", 16, seed=1)
    batch = batches.batch(other)
    with torch.no_grad():
        first, second = compute_logits(model.eval(), batch)
    fidelity = HEADS.index("fidelity")
    right = (first > second)[:, fidelity] == (torch.as_tensor(batch["preferred"])[:, fidelity] > 0.5)
    assert right.float().mean() >= 0.9
