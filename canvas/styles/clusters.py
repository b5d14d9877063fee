"""Style descriptors of images, and clusters of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.styles.spec import ClusterSpec, Criterion

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans

SHRINKAGE = 5
"""Number of a product's pins at which half of its mean counts: the mean of a few is mostly their style."""


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
    numbers = {content: number for number, content in enumerate(dict.fromkeys(contents))}
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
    sample = np.random.default_rng(spec.seed).permutation(len(vectors))[: spec.criterion_pins]
    labels: dict[int, NDArray[np.int64]] = {
        number: build_kmeans(spec, number).fit(vectors).labels_.astype(np.int64) for number in sorted(spec.numbers)
    }
    scores = {number: compute_criterion(vectors[sample], own[sample], spec.criterion) for number, own in labels.items()}
    return Clusters(labels[max(scores, key=scores.__getitem__)], scores)


def build_kmeans(spec: ClusterSpec, number: int) -> KMeans | MiniBatchKMeans:
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
    if name == "davies_bouldin":
        return -float(metrics.davies_bouldin_score(vectors, labels))
    score = metrics.silhouette_score if name == "silhouette" else metrics.calinski_harabasz_score
    return float(score(vectors, labels))
