"""Calibration of probabilities: its error, and the isotonic fit that corrects it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15  # number of confidence bins, as in Guo et al. 2017
MARGIN = 0.001  # distance of calibrated probabilities from 0 and 1


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Return the expected calibration error of binary outcomes in BINS equal bins, 0 perfect to 1 (Naeini et al. 2015).

    Raises `ValueError` for no probabilities.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    values, labels = np.asarray(probabilities, np.float32), np.asarray(outcomes)
    if not values.size:
        raise ValueError("a calibration error needs probabilities with their outcomes, there are none")
    targets = torch.from_numpy(labels.astype(np.int64))
    return float(binary_calibration_error(torch.from_numpy(values), targets, n_bins=BINS))


def fit_isotonic(logits: ArrayLike, outcomes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit probabilities of the outcome to logits by isotonic regression (Zadrozny and Elkan 2002).

    Returns:
        Knots and levels, both ascending, with straight lines between; levels stay MARGIN off 0 and 1. Without data they
        are the sigmoid.
    """
    from sklearn.isotonic import IsotonicRegression

    values, labels = np.asarray(logits, np.float64), np.asarray(outcomes, np.float64)
    if not values.size:
        knots = np.linspace(-8, 8, 64)
        return knots, 1 / (1 + np.exp(-knots))
    fitted = IsotonicRegression(y_min=MARGIN, y_max=1 - MARGIN, out_of_bounds="clip").fit(values, labels)
    return np.asarray(fitted.X_thresholds_, np.float64), np.asarray(fitted.y_thresholds_, np.float64)
