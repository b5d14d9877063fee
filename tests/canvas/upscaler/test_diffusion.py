from __future__ import annotations

import numpy as np
import pytest
import torch

from canvas.train.draws import Draws
from canvas.upscaler.diffusion import NOISE_SIDE, DiffusionUpscaler, draw_noise
from canvas.upscaler.loading import load_upscaler
from canvas.upscaler.spec import FACTORS
from canvas.upscaler.tiles import enlarge
from canvas.upscaler.training import DiffusionUpscalerObjective
from canvas.vae.objective import ReconstructionLoss
from canvas.vae.spec import ReconstructionSpec
from tests.canvas.upscaler.test_model import draw


def build_moved(steps: int = 2) -> DiffusionUpscaler:
    """An upscaler whose heads say something, and whose residuals are as large as images."""
    torch.manual_seed(0)
    upscaler = DiffusionUpscaler(8, 1, steps).eval()
    for head in (*upscaler.regression.heads.values(), *upscaler.flow.heads.values()):
        torch.nn.init.normal_(head.weight, std=0.1)
    return upscaler


@pytest.mark.parametrize("factor", FACTORS)
def test_what_it_adds_to_the_mean_is_as_large_as_residuals_are(factor: int) -> None:
    torch.manual_seed(0)
    upscaler = DiffusionUpscaler(8, 1, 3).eval()
    with torch.no_grad():
        mean = upscaler.regression(*draw(factor))
        upscaler.deviations.fill_(0.0)
        assert torch.equal(upscaler(*draw(factor)), mean)
        upscaler.deviations.fill_(0.1)
        added = (upscaler(*draw(factor)) - mean)[draw(factor)[2].expand(-1, 3, -1, -1) == 0]
    assert 0.01 < added.std() < 0.15


def test_the_noise_is_a_function_of_the_place() -> None:
    whole = draw_noise(slice(0, 3 * NOISE_SIDE), slice(0, 2 * NOISE_SIDE + 5))
    rows, columns = slice(NOISE_SIDE - 7, 2 * NOISE_SIDE + 9), slice(3, NOISE_SIDE + 1)
    assert torch.equal(draw_noise(rows, columns), whole[:, :, rows, columns])
    assert abs(whole.mean()) < 0.01
    assert whole.std() == pytest.approx(1, abs=0.01)
    first, second = whole[..., :NOISE_SIDE, :NOISE_SIDE], whole[..., NOISE_SIDE : 2 * NOISE_SIDE, :NOISE_SIDE]
    assert abs((first * second).mean()) < 0.02


@pytest.mark.parametrize("factor", FACTORS)
def test_tiles_give_what_the_whole_gives(factor: int) -> None:
    """Up to one level of 255, where two sums round differently."""
    upscaler, random = build_moved(), np.random.default_rng(0)
    small = random.integers(0, 256, (41, 60, 3), np.uint8)
    product = random.integers(0, 256, (factor * 41, factor * 60, 3), np.uint8)
    alpha = random.integers(0, 256, (factor * 41, factor * 60), np.uint8)
    whole = enlarge(upscaler, small, product, alpha, tile=64).astype(int)
    tiled = enlarge(upscaler, small, product, alpha, tile=11).astype(int)
    assert np.abs(whole - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3
    assert np.array_equal(whole, enlarge(upscaler, small, product, alpha, tile=64))


def test_the_residual_is_what_the_regression_leaves() -> None:
    torch.manual_seed(1)
    upscaler, (small, product, alpha) = DiffusionUpscaler(8, 1, 2), draw(2)
    with torch.no_grad():
        mean = upscaler.regression(small, product, alpha)
    wanted = mean + 0.1 * torch.randn_like(mean)
    upscaler.measure_residuals([(small, torch.zeros_like(alpha), wanted)])
    left = (wanted - upscaler.regression(small, wanted, torch.zeros_like(alpha))).std().item()
    assert upscaler.deviations[0].item() == pytest.approx(left, rel=0.05)
    assert upscaler.deviations[1] == 1  # the other factor's


def test_the_flow_learns_and_its_regression_does_not_learn_from_it() -> None:
    """Light and dark in equal chance: a regression says grey, samples are the one or the other."""
    torch.manual_seed(0)
    upscaler = DiffusionUpscaler(16, 1, 8)
    spec = ReconstructionSpec(l1=0.0, l2=1.0, spectrum=0.0, features=0.0)
    objective = DiffusionUpscalerObjective(ReconstructionLoss(spec, None))
    optimizer = torch.optim.Adam(upscaler.parameters(), lr=1e-2)
    images = torch.cat([torch.full((8, 3, 8, 8), value, dtype=torch.uint8) for value in (64, 191)])
    batch = {
        "pin_id": [""] * 16,
        "small": torch.full((16, 3, 4, 4), 127, dtype=torch.uint8),
        "images": images,
        "alpha": torch.zeros(16, 1, 8, 8, dtype=torch.uint8),
    }
    upscaler.deviations.fill_(0.5)
    losses = []
    for step in range(300):
        loss, terms = objective(upscaler, batch, Draws(0, step, 0, 16))
        losses.append(terms["flow"].item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])
    nothing = torch.zeros(64, 3, 8, 8), torch.zeros(64, 3, 8, 8)
    with torch.no_grad():
        upscaler.eval()
        small = torch.zeros(64, 3, 4, 4)
        mean = upscaler.regression(small, nothing[0], torch.zeros(64, 1, 8, 8))
        sampled = upscaler(small, nothing[0], torch.zeros(64, 1, 8, 8), torch.randn(64, 3, 8, 8))
    assert mean.abs().mean() < 0.1
    assert sampled.abs().mean() > 0.3


def test_saves_and_loads(tmp_path) -> None:
    upscaler = build_moved()
    upscaler.deviations.copy_(torch.tensor([0.3, 0.4]))
    upscaler.save_pretrained(tmp_path)
    again = load_upscaler(tmp_path)
    assert isinstance(again, DiffusionUpscaler)
    assert again.config["steps"] == 2
    with torch.no_grad():
        assert torch.equal(again(*draw(4)), upscaler(*draw(4)))
