"""Whether probabilities mean what they say, and the correction that makes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
"""Of confidence, as Guo et al. 2017 count it."""

MARGIN = 0.001
"""Nothing is surer than that."""


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Mean distance of the probability from the share of outcomes in BINS bins of equal width, weighted by their
    numbers (Naeini et al. 2015; for binary outcomes), 0 perfect to 1. Raises `ValueError` for none."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    given, happened = np.asarray(probabilities, np.float32), np.asarray(outcomes)
    if not given.size:
        raise ValueError("a calibration error needs probabilities with their outcomes, there are none")
    found = binary_calibration_error(torch.from_numpy(given), torch.from_numpy(happened.astype(np.int64)), n_bins=BINS)
    return float(found)


def fit_isotonic(logits: ArrayLike, outcomes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(knots, levels), both ascending: the chance of the outcome at some logits, straight lines between, by isotonic
    regression (Zadrozny and Elkan 2002). Levels stay off 0 and 1. Where nothing is known: the sigmoid."""
    from sklearn.isotonic import IsotonicRegression

    given, happened = np.asarray(logits, np.float64), np.asarray(outcomes, np.float64)
    if not given.size:
        knots = np.linspace(-8, 8, 64)
        return knots, 1 / (1 + np.exp(-knots))
    fitted = IsotonicRegression(y_min=MARGIN, y_max=1 - MARGIN, out_of_bounds="clip").fit(given, happened)
    return np.asarray(fitted.X_thresholds_, np.float64), np.asarray(fitted.y_thresholds_, np.float64)
