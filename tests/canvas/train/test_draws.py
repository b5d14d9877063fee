from __future__ import annotations

import pytest
import torch

from canvas.train.draws import Draws


def draw(draws: Draws) -> tuple[torch.Tensor, ...]:
    count = len(draws)
    return draws.normal(count, 4, 4, 2), draws.uniform(count), draws.integers(10, count, 3), draws.normal(count, 2)


@pytest.mark.parametrize("parts", [(3, 5), (1, 1, 6), (4, 4)])
def test_a_sample_draws_the_same_however_the_batch_is_cut(parts: tuple[int, ...]) -> None:
    whole = draw(Draws(3, 17, 0, 8))
    pieces, first = [], 0
    for samples in parts:
        pieces.append(draw(Draws(3, 17, first, samples)))
        first += samples
    for expected, *cut in zip(whole, *pieces, strict=True):
        assert torch.equal(expected, torch.cat(cut))


@pytest.mark.parametrize("other", [(4, 17, 0), (3, 18, 0), (3, 17, 1)])
def test_seed_step_and_sample_matter(other: tuple[int, int, int]) -> None:
    ours, theirs = Draws(3, 17, 0, 1).normal(1, 64), Draws(*other, 1).normal(1, 64)
    assert not torch.isclose(ours, theirs).any()


def test_another_stream_is_independent_and_so_are_successive_calls() -> None:
    draws = Draws(3, 17, 0, 1)
    first, second, other = draws.normal(1, 4096), draws.normal(1, 4096), Draws(3, 17, 0, 1, stream=1).normal(1, 4096)
    for pair in ((first, second), (first, other)):
        assert abs(torch.corrcoef(torch.cat(pair))[0, 1]) < 0.06


def test_distributions() -> None:
    draws = Draws(0, 0, 0, 64)
    normal, uniform, integers = draws.normal(64, 1024), draws.uniform(64, 1024), draws.integers(5, 64, 1024)
    assert normal.mean().abs() < 0.02
    assert (normal.std() - 1).abs() < 0.02
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert (uniform.mean() - 0.5).abs() < 0.01
    assert torch.equal(integers.unique(), torch.arange(5))
    assert (integers.float().mean() - 2).abs() < 0.05


def test_samples_of_neighbouring_steps_are_uncorrelated() -> None:
    noise = torch.cat([Draws(0, step, 0, 8).normal(8, 4096) for step in range(4)])
    correlations = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlations.abs().max() < 0.08


def test_a_shape_must_start_with_the_samples() -> None:
    with pytest.raises(AssertionError, match="2 samples"):
        Draws(0, 0, 0, 2).normal(3, 4)
