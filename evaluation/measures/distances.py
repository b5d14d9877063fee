"""How far painted pictures are, as a set, from real ones, and from each other.

Features are float32 [pictures, dimensions]. A distance of small sets is biased upwards or has a large error: compare
sets of one size, and mind the error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors

Features = NDArray[np.float32]
Kernel = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

HALVES = 50
"""Random halves that the standard error of a number of whole sets is taken from."""

CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0
"""Of the Gaussian kernel, and what the distance is multiplied by (Jayasumana et al. 2024, section 5)."""


def frechet_distance(real: Features, made: Features) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets (FID; Heusel et al. 2017, eq. 6), 0 or more.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With centred features A, B the last trace is the sum of the
    singular values of A B' / sqrt((n - 1)(m - 1)): exact, of the size of the sets, and it needs no root of a singular
    matrix. Biased upwards for small sets. ValueError for fewer than 2 pictures in either.
    """
    _check_set_sizes(real, made)
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (real, made))
    shift = real.mean(axis=0, dtype=np.float64) - made.mean(axis=0, dtype=np.float64)
    n, m = len(a) - 1, len(b) - 1
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(n * m)
    return float(max(0.0, shift @ shift + (a**2).sum() / n + (b**2).sum() / m - 2 * root))


def kernel_distance(real: Features, made: Features) -> float:
    """Kernel distance of two sets (KID; Binkowski et al. 2018, section 4) under the `polynomial` kernel, unbiased: 0
    for sets of one distribution, also below by chance. ValueError for fewer than 2 pictures in either."""
    return squared_mmd(real, made, polynomial_kernel)


def cmmd(real: Features, made: Features) -> float:
    """Distance of two sets of image embeddings of a text-image encoder (CMMD; Jayasumana et al. 2024): Gaussian kernel
    on unit vectors, unbiased. 0 for sets of one distribution, also below by chance."""
    return CMMD_SCALE * squared_mmd(normalize_vectors(real), normalize_vectors(made), gaussian_kernel)


def squared_mmd(real: Features, made: Features, kernel: Kernel) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3). ValueError for fewer
    than 2 pictures in either set."""
    _check_set_sizes(real, made)
    x, y = real.astype(np.float64), made.astype(np.float64)
    n, m = len(x), len(y)
    of_x, of_y, across = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (of_x.sum() - np.trace(of_x)) / (n * (n - 1))
    within_y = (of_y.sum() - np.trace(of_y)) / (m * (m - 1))
    return float(within_x + within_y - 2 * across.mean())


def polynomial_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x . y / dimensions + 1)^3 for each two rows."""
    found: NDArray[np.float64] = (x @ y.T / x.shape[1] + 1) ** 3
    return found


def gaussian_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-|x - y|^2 / (2 CMMD_BANDWIDTH^2)) for each two rows."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * CMMD_BANDWIDTH**2)))


def vendi_score(made: Features) -> float:
    """Effective number of different pictures, 1 (all alike) to their number (Friedman and Dieng 2023, eq. 2): the
    exponential of the entropy of the eigenvalues of K / n, K the cosines. ValueError for no picture."""
    if not len(made):
        raise ValueError("no picture has no diversity: give one or more")
    x = normalize_vectors(made).astype(np.float64)
    values = np.linalg.eigvalsh(x @ x.T / len(x))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def half_sample_error(distance: Callable[[Features, Features], float], real: Features, made: Features) -> float:
    """Standard error of a distance of two sets, from HALVES random halves of both (half-sampling, Shao and Tu 1995,
    chapter 5.2); the same for the same sets."""
    rng = np.random.default_rng(0)

    def half(features: Features) -> Features:
        return features[rng.choice(len(features), max(2, len(features) // 2), replace=False)]

    return float(np.std([distance(half(real), half(made)) for _ in range(HALVES)]))


def _check_set_sizes(real: Features, made: Features) -> None:
    if min(len(real), len(made)) < 2:
        raise ValueError(f"a distance of {len(real)} and {len(made)} pictures: give 2 or more of both")
