"""What an upscaler is scored by: backgrounds count, the product does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from canvas.upscaler.examples import Examples, LargeImages
from canvas.upscaler.model import Upscaler
from canvas.upscaler.spec import FACTORS
from evaluation.measures.upscaling import background_psnr, score_upscaler
from tests.canvas.upscaler.test_model import build_moved

SIDE = 32


def make_examples(count: int = 3) -> Examples:
    """Noise with a product in its middle, and small twins that are its averages."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[8:24, 8:24] = 255
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count)]
    large = LargeImages.stack([f"p{number}" for number in range(count)], images, [alpha] * count)
    pooled = {factor: torch.nn.functional.avg_pool2d(large.images.float(), factor) for factor in FACTORS}
    return Examples(large, {factor: small.round().to(torch.uint8) for factor, small in pooled.items()})


def measure_difference(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (images - targets).abs().flatten(1).mean(dim=1)


def test_an_error_counts_outside_of_the_product_alone() -> None:
    targets, alpha = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    alpha[..., :4] = 1
    images = targets.clone()
    images[..., :4] = 1.0  # of the product
    images[1, :, :, 4:] = 0.2
    psnr = background_psnr(images, targets, alpha)
    assert math.isinf(psnr[0])
    assert float(psnr[1]) == pytest.approx(10 * math.log10(2**2 / 0.2**2), abs=1e-4)


def test_figures_compare_with_the_cubic_filter_image_by_image() -> None:
    examples = make_examples()
    figures = score_upscaler(build_moved(), examples, measure_difference)
    assert list(figures) == ["x2", "x4"]
    for scores in figures.values():
        assert scores["images"] == 3
        assert scores["psnr_db"] - scores["psnr_db_cubic"] == pytest.approx(scores["psnr_db_gain"])
        assert scores["psnr_db_gain_low"] <= scores["psnr_db_gain"] <= scores["psnr_db_gain_high"]
        assert scores["psnr_db_gain"] < 0  # its heads are random
        assert scores["perceptual_cut"] < 0


def test_a_fitted_filter_is_better_on_what_it_was_fitted_to() -> None:
    examples, upscaler = make_examples(), Upscaler(8, 1).eval()
    large = examples.large
    images, alphas = large.images.float() / 127.5 - 1, large.alphas.float() / 255
    for small in examples.small.values():
        upscaler.fit_filter([(small.float() / 127.5 - 1, alphas, images)])
    for scores in score_upscaler(upscaler, examples, measure_difference).values():
        assert scores["psnr_db_gain_low"] > 0
