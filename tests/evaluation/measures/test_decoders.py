from __future__ import annotations

import pytest
import torch

from canvas.masks.composite import compute_seam_gradient
from evaluation.measures.decoders import DecoderScores, compute_grid_ratio
from evaluation.statistics.intervals import bootstrap_mean


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) - 0.5


def mask(count: int) -> torch.Tensor:
    made = torch.zeros(count, 1, 16, 16)
    made[..., 4:12, 4:12] = 1
    return made


def test_gains_are_means_of_differences_between_the_two_pictures_of_a_pin():
    count = 6
    images, noise = pictures(count, 0), pictures(count, 1)
    by_pin = torch.linspace(0.1, 2, count)[:, None, None, None]  # pins differ far more than a pin's two pictures
    decoded, pasted = images + 0.1 * by_pin * noise, images + 0.12 * by_pin * noise
    scores = DecoderScores(erosion=2, reach=2, grids={})
    for some in (slice(0, 4), slice(4, count)):
        scores.add(decoded[some], pasted[some], images[some], mask(count)[some])
    metrics = scores.compute_metrics()
    assert metrics["psnr_db_gain"] == pytest.approx(metrics["psnr_db"] - metrics["psnr_db_pasted"], abs=1e-4)
    assert 0 < metrics["psnr_db_gain_low"] <= metrics["psnr_db_gain"] <= metrics["psnr_db_gain_high"]
    assert metrics["psnr_db_low"] < metrics["psnr_db_pasted_high"]  # unpaired, the intervals overlap
    one, other = (compute_seam_gradient(each.clamp(-1, 1), mask(count), 2) for each in (decoded, pasted))
    real = compute_seam_gradient(images, mask(count), 2)
    gains = bootstrap_mean(((other / real - 1).abs() - (one / real - 1).abs()).tolist())
    assert gains.mean > 0
    names = ("seam_error_gain", "seam_error_gain_low", "seam_error_gain_high")
    assert [metrics[name] for name in names] == pytest.approx([gains.mean, gains.low, gains.high], abs=1e-6)


def test_a_product_without_an_edge_has_no_seam():
    images, none = pictures(2, 0), mask(2)
    none[1] = 1
    scores = DecoderScores(erosion=2, reach=2, grids={})
    scores.add(images + 0.1, images + 0.2, images, none)
    assert scores.compute_metrics()["pins"] == 2
    alone = DecoderScores(erosion=2, reach=2, grids={})
    alone.add(images[:1] + 0.1, images[:1] + 0.2, images[:1], none[:1])
    for name in ("seam_gradient_ratio", "seam_error_gain"):
        assert scores.compute_metrics()[name] == pytest.approx(alone.compute_metrics()[name])


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no held-out product to score the decoder on"):
        DecoderScores(erosion=2, reach=2, grids={}).compute_metrics()


def test_a_mosaic_changes_more_on_its_lines():
    smooth = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    empty = torch.zeros(1, 1, 16, 16)
    assert compute_grid_ratio(smooth, empty, 4).tolist() == pytest.approx([1.0])
    tiles = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 2)
    mosaic = tiles.repeat_interleave(4, 3) + 0.01 * pictures(2, 1)
    assert (compute_grid_ratio(mosaic, empty.expand(2, -1, -1, -1), 4) > 10).all()
    assert (compute_grid_ratio(mosaic, empty.expand(2, -1, -1, -1), 3) < 2).all()  # lines elsewhere


def test_the_product_is_no_mosaic():
    smooth = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16).clone()
    smooth[..., 4:12, 4:12] = -1  # its edge lies on the grid
    assert compute_grid_ratio(smooth, mask(1), 4).tolist() == pytest.approx([1.0])
    assert compute_grid_ratio(smooth, torch.ones(1, 1, 16, 16), 4).isnan().all()


def test_grids_are_scored_by_their_names():
    images = pictures(2, 0)
    scores = DecoderScores(erosion=2, reach=2, grids={"cell": 2})
    scores.add(0.9 * images, 0.8 * images, images, mask(2))
    metrics = scores.compute_metrics()
    assert metrics["cell_gradient_ratio"] == pytest.approx(metrics["cell_gradient_ratio_real"])
    assert metrics["cell_gradient_ratio"] == pytest.approx(1, abs=0.4)
