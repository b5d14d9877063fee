"""Style descriptors of images, and clusters of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import Vectors, normalize_vectors

Criterion = Literal["silhouette", "calinski_harabasz", "davies_bouldin"]

SHRINKAGE = 5
"""Pins of a product at which half of its mean counts: the mean of a few is mostly their style."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSpec:
    """K-means over several numbers of clusters; the criterion takes the best."""

    numbers: tuple[int, ...]  # of clusters to try
    criterion: Criterion  # by which the number is chosen
    criterion_pins: int  # that it is computed on, at most: a silhouette takes time and memory with their square
    batch_size: int | None  # of MiniBatchKMeans; null: whole passes (Lloyd)
    restarts: int  # of k-means, of which the best is kept
    seed: int

    def __post_init__(self) -> None:
        if not self.numbers or min(self.numbers) < 2:
            raise ValueError(f"clusters.numbers is {list(self.numbers)}: give numbers of 2 or more")
        if self.criterion_pins <= max(self.numbers) or self.restarts < 1:
            raise ValueError(
                f"clusters needs more criterion_pins than the {max(self.numbers)} clusters and restarts of 1 or more, "
                f"not {self.criterion_pins} and {self.restarts}"
            )


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of the number that the criterion prefers."""

    labels: NDArray[np.int64]  # [N], number of each row's cluster
    scores: Mapping[int, float]  # number of clusters -> criterion, higher is better


def compute_descriptors(vectors: Vectors, contents: Sequence[str | None]) -> Vectors:
    """Return what images look like apart from what they show, as unit vectors.

    The mean vector of all images of the same content (a product; None: nothing in particular) is taken out of each;
    the fewer a content has, the more is its mean drawn towards that of all images, by SHRINKAGE.
    """
    centred = vectors - vectors.mean(axis=0)
    numbers = {content: at for at, content in enumerate(dict.fromkeys(contents))}
    content_of = np.array([numbers[content] for content in contents])
    sums = np.zeros((len(numbers), vectors.shape[1]))
    np.add.at(sums, content_of, centred)
    means = sums / (np.bincount(content_of, minlength=len(numbers)) + SHRINKAGE)[:, None]
    if None in numbers:
        means[numbers[None]] = 0
    centred -= means.astype(np.float32)[content_of]
    return normalize_vectors(centred)


def cluster_vectors(vectors: Vectors, spec: ClusterSpec) -> Clusters:
    """Run k-means with each of `spec.numbers` and return the clusters of the best (the smaller, if two are equal).

    Raises ValueError if there are no more vectors than clusters.
    """
    if len(vectors) <= max(spec.numbers):
        raise ValueError(
            f"{len(vectors)} images cannot be parted into {max(spec.numbers)} clusters: lower clusters.numbers"
        )
    rng = np.random.default_rng(spec.seed)
    sample = rng.permutation(len(vectors))[: spec.criterion_pins]
    scores: dict[int, float] = {}
    best: tuple[float, NDArray[np.int64]] | None = None
    for number in sorted(spec.numbers):
        model = build_kmeans(spec, number).fit(vectors)
        labels = np.asarray(model.labels_, np.int64)
        scores[number] = score = compute_criterion(vectors[sample], labels[sample], spec.criterion)
        if best is None or score > best[0]:
            best = score, labels
    assert best is not None
    return Clusters(best[1], scores)


def build_kmeans(spec: ClusterSpec, number: int) -> Any:
    """Build scikit-learn's estimator of `number` clusters, not yet fitted."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if spec.batch_size is None:
        return KMeans(number, n_init=spec.restarts, random_state=spec.seed)
    return MiniBatchKMeans(
        number, batch_size=spec.batch_size, n_init=spec.restarts, random_state=spec.seed, compute_labels=True
    )


def compute_criterion(vectors: Vectors, labels: NDArray[np.int64], name: Criterion) -> float:
    """Return how well the clusters part, higher is better; -inf for fewer than two, or if all are alone.

    silhouette: Rousseeuw 1987; calinski_harabasz: 1974; davies_bouldin: 1979, its sign turned.
    """
    from sklearn import metrics

    if not 2 <= len(np.unique(labels)) < len(labels):
        return -np.inf
    match name:
        case "silhouette":
            return float(metrics.silhouette_score(vectors, labels))
        case "calinski_harabasz":
            return float(metrics.calinski_harabasz_score(vectors, labels))
        case "davies_bouldin":
            return -float(metrics.davies_bouldin_score(vectors, labels))
