from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from canvas.train.checkpoint import get_step_directory, write_checkpoint
from canvas.train.ema import Averages, Snapshots, compute_exponent, load_best, solve_weights

STEPS, EVERY = 2000, 100


def trajectory(step: int) -> torch.Tensor:
    """Weights [3] after `step` steps: a decay, a drift and an oscillation, with noise."""
    noise = torch.randn(3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    at = step / STEPS
    return torch.tensor([np.exp(-5 * at), at**2, np.cos(20 * at)], dtype=torch.float64) + 0.1 * noise


def direct_average(length: float, step: int) -> torch.Tensor:
    """The power-function average of `length` at `step`, by its definition as a weighted sum over the trajectory."""
    times = np.arange(1, step + 1)
    weights = times.astype(float) ** compute_exponent(length)
    return sum(w * trajectory(int(t)) for w, t in zip(weights / weights.sum(), times, strict=True))


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Snapshots:
    place = tmp_path_factory.mktemp("ema")
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    averages = Averages({"w": parameter}, (0.05, 0.10))
    for step in range(1, STEPS + 1):
        parameter.data.copy_(trajectory(step))
        averages.update(step)
        if step % EVERY == 0:
            write_checkpoint(get_step_directory(place, step), {str(k): v for k, v in averages.tensors.items()}, {})
    return Snapshots(place)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_length_is_the_relative_deviation_of_the_profile(length: float) -> None:
    gamma, at = compute_exponent(length), (np.arange(1_000_000) + 0.5) / 1_000_000
    weights = at**gamma / (at**gamma).sum()
    mean = (weights * at).sum()
    assert np.sqrt((weights * (at - mean) ** 2).sum()) == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_of_the_paper(length: float, gamma: float) -> None:
    assert compute_exponent(length) == pytest.approx(gamma, abs=0.005)  # section 3.1: sigma_rel 0.05 and 0.10


def test_snapshots_hold_the_running_average(snapshots: Snapshots) -> None:
    for length in (0.05, 0.10):
        expected = direct_average(length, 1500)
        torch.testing.assert_close(snapshots.average(length, 1500)["w"].double(), expected, atol=3e-3, rtol=0)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.13, 0.20])
def test_other_lengths_are_reconstructed(snapshots: Snapshots, length: float) -> None:
    error = (snapshots.average(length)["w"].double() - direct_average(length, STEPS)).abs().max()
    nearest = (snapshots.average(0.05)["w"].double() - direct_average(length, STEPS)).abs().max()
    assert error < 5e-3
    assert error < nearest / 4  # and not because all averages are alike


def test_combination_of_a_snapshot_is_itself() -> None:
    kept = [(step, length) for step in (100, 200, 300) for length in (0.05, 0.1)]
    np.testing.assert_allclose(solve_weights(kept, 300, 0.1), [0, 0, 0, 0, 0, 1], atol=1e-8)


@pytest.mark.parametrize("length", [0.02, 0.07, 0.2])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_constant_weights_average_to_themselves(count: int, length: float) -> None:
    kept = [(100 * (at + 1), width) for at in range(count) for width in (0.05, 0.1)]
    assert solve_weights(kept, 100 * count, length).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.289, 1.0])
def test_impossible_lengths_are_refused(length: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        compute_exponent(length)


def test_length_is_chosen_by_the_score(snapshots: Snapshots) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

    model, target = Model(), direct_average(0.13, STEPS).float()
    scores = load_best(model, snapshots, (0.03, 0.13, 0.25), lambda m: float((m.w.detach() - target).abs().max()))
    assert min(scores, key=scores.__getitem__) == 0.13
    torch.testing.assert_close(model.w.detach(), target, atol=5e-3, rtol=0)
