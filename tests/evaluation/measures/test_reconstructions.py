from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from evaluation.measures.reconstructions import psnr, ssim
from tests.canvas.vae.test_objective import _blurred, _textures


def test_psnr_of_a_known_error():
    targets = torch.zeros(1, 3, 8, 8)
    assert psnr(targets + 0.2, targets).item() == pytest.approx(20 * math.log10(2 / 0.2), abs=1e-4)
    assert psnr(targets, targets).item() == math.inf


def test_ssim_agrees_with_an_independent_computation():
    x, y = _textures(1), _blurred(_textures(1))
    assert ssim(x, x).item() == pytest.approx(1)
    luma = np.array([0.299, 0.587, 0.114])
    a, b = ((picture[0].numpy() * luma[:, None, None]).sum(0) for picture in (x, y))

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma=1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    var_a, var_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    c1, c2 = 0.02**2, 0.06**2
    wanted = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    wanted = wanted / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (var_a + var_b + c2))
    assert ssim(x, y).item() == pytest.approx(wanted.mean(), abs=1e-5)
