"""Whether probabilities mean what they say, and the correction that makes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
"""Of confidence, as Guo et al. 2017 count it."""


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


def platt(logits: ArrayLike, outcomes: ArrayLike) -> tuple[float, float]:
    """(scale, offset) with which sigmoid(scale * logit + offset) is the chance of the outcome (Platt 1999), by maximum
    likelihood with a weak prior; (1, 0) where all outcomes are one, and nothing can be learnt. The scale stays above
    0, so that ranks are kept."""
    from sklearn.linear_model import LogisticRegression

    given: NDArray[np.float64] = np.asarray(logits, np.float64)
    happened = np.asarray(outcomes).astype(int)
    if len(np.unique(happened)) < 2:
        return 1.0, 0.0
    model = LogisticRegression(C=10.0).fit(given[:, None], happened)
    scale = float(model.coef_[0, 0])
    return (scale, float(model.intercept_[0])) if scale > 0 else (1.0, 0.0)
