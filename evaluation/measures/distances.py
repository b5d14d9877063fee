"""Distances of sets of generated and real images, their diversity, and agreement of images and texts, by features.

Features are float32 [images, dimensions]. A distance of small sets is biased upwards or has a large error: compare
sets of one size, and mind the error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import normalize_vectors

Features = NDArray[np.float32]
Kernel = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

HALVES = 50  # random halves for the standard error of a distance

CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0
"""Bandwidth of the Gaussian kernel and factor of the distance (Jayasumana et al. 2024, section 5)."""


def frechet_distance(real: Features, generated: Features) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to two sets (FID; Heusel et al. 2017, eq. 6), 0 or more.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With centred features A, B the last trace is the sum of the
    singular values of A B' / sqrt((n - 1)(m - 1)): exact, of the size of the sets, and it needs no root of a singular
    matrix. Biased upwards for small sets. Raises `ValueError` for fewer than 2 images in either.
    """
    _check_set_sizes(real, generated)
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (real, generated))
    shift = real.mean(axis=0, dtype=np.float64) - generated.mean(axis=0, dtype=np.float64)
    n, m = len(a) - 1, len(b) - 1
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(n * m)
    return float(max(0.0, shift @ shift + (a**2).sum() / n + (b**2).sum() / m - 2 * root))


def kernel_distance(real: Features, generated: Features) -> float:
    """Return the kernel distance of two sets under the polynomial kernel (KID; Binkowski et al. 2018, section 4).

    Unbiased: around 0 for sets of one distribution. Raises `ValueError` for fewer than 2 images in either.
    """
    return squared_mmd(real, generated, polynomial_kernel)


def cmmd(real: Features, generated: Features) -> float:
    """Return the distance of two sets of CLIP embeddings under the Gaussian kernel (CMMD; Jayasumana et al. 2024).

    Unbiased: around 0 for sets of one distribution. Raises `ValueError` for fewer than 2 images in either.
    """
    return CMMD_SCALE * squared_mmd(normalize_vectors(real), normalize_vectors(generated), gaussian_kernel)


def squared_mmd(real: Features, generated: Features, kernel: Kernel) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3)."""
    _check_set_sizes(real, generated)
    x, y = real.astype(np.float64), generated.astype(np.float64)
    n, m = len(x), len(y)
    kernel_xx, kernel_yy, kernel_xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (kernel_xx.sum() - np.trace(kernel_xx)) / (n * (n - 1))
    within_y = (kernel_yy.sum() - np.trace(kernel_yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel_xy.mean())


def polynomial_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (x . y / dimensions + 1)^3 for each two rows."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def gaussian_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-|x - y|^2 / (2 CMMD_BANDWIDTH^2)) for each two rows."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * CMMD_BANDWIDTH**2)))


def vendi_score(generated: Features) -> float:
    """Return the effective number of different images, 1 (all alike) to their number (Friedman and Dieng 2023, eq. 2).

    It is the exponential of the entropy of the eigenvalues of K / n, K the cosines. Raises `ValueError` for no image.
    """
    if not len(generated):
        raise ValueError("no image has no diversity: give one or more")
    x = normalize_vectors(generated).astype(np.float64)
    values = np.linalg.eigvalsh(x @ x.T / len(x))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def text_agreement(images: Features, texts: Features) -> Features:
    """Return the cosine of each image's embedding and its text's by the same encoder, [images] in -1..1.

    It is CLIPScore without its factor and its cut at 0 (Hessel et al. 2021, section 3). Raises `ValueError` unless each
    image has one text.
    """
    if images.shape != texts.shape:
        raise ValueError(f"{len(texts)} texts for {len(images)} images, {texts.shape} and {images.shape}")
    return np.asarray((normalize_vectors(images) * normalize_vectors(texts)).sum(axis=1))


def half_sample_error(distance: Callable[[Features, Features], float], real: Features, generated: Features) -> float:
    """Return the standard error of a distance of two sets by half-sampling (Shao and Tu 1995, chapter 5.2)."""
    rng = np.random.default_rng(0)

    def half(features: Features) -> Features:
        return features[rng.choice(len(features), max(2, len(features) // 2), replace=False)]

    return float(np.std([distance(half(real), half(generated)) for _ in range(HALVES)]))


def _check_set_sizes(real: Features, generated: Features) -> None:
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"a distance of {len(real)} and {len(generated)} images: give 2 or more of both")
