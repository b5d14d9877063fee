"""Style descriptors of images, clusters of them, and whether a group of them coheres more than chance would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from canvas.features.vectors import Vectors, normalize_vectors
from canvas.pins.fallbacks import Notes
from canvas.styles.spec import ClusterSpec, Criterion

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans

SHRINKAGE = 5
"""Number of a product's pins at which half of its mean counts: the mean of a few is mostly their style."""

RANDOM_SETS = 999
"""Random sets that a group is compared with: the smallest p-value is one in a thousand."""

MAX_MEMBERS = 300
"""Members of a group that are compared, at most, spread evenly: more add nothing to its coherence but time."""


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


def cluster_vectors(vectors: Vectors, spec: ClusterSpec, notes: Notes | None = None) -> Clusters:
    """Run k-means with each of `spec.numbers` and return the clusters of the best (the smaller, if two are equal).

    Numbers of as many clusters as vectors, or of more, are left out, which is noted; without any other, all vectors
    are one cluster.
    """
    numbers = sorted(number for number in spec.numbers if number < len(vectors))
    if left_out := sorted(set(spec.numbers) - set(numbers)):
        what = f"{len(vectors)} images cannot be parted into {', '.join(map(str, left_out))} clusters"
        (notes or Notes()).add(f"{what}, so {'fewer were tried' if numbers else 'they are one'}")
    if not numbers:
        return Clusters(np.zeros(len(vectors), np.int64), {})
    sample = np.random.default_rng(spec.seed).permutation(len(vectors))[: spec.criterion_pins]
    labels: dict[int, NDArray[np.int64]] = {
        number: build_kmeans(spec, number).fit(vectors).labels_.astype(np.int64) for number in numbers
    }
    scores = {
        number: compute_criterion(vectors[sample], assignment[sample], spec.criterion)
        for number, assignment in labels.items()
    }
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
    """Return how well the clusters part, higher is better; -inf for fewer than two, or if all are alone. silhouette:
    Rousseeuw 1987; calinski_harabasz: 1974; davies_bouldin: 1979, its sign turned."""
    from sklearn import metrics

    if not 2 <= len(np.unique(labels)) < len(labels):
        return -np.inf
    if name == "davies_bouldin":
        return -float(metrics.davies_bouldin_score(vectors, labels))
    score = metrics.silhouette_score if name == "silhouette" else metrics.calinski_harabasz_score
    return float(score(vectors, labels))


class CoherenceTest(NamedTuple):
    """A group's coherence beside that of random sets of its size."""

    coherence: float
    random: float  # mean coherence of the random sets
    p_value: float  # chance that a random set coheres as much or more


def compute_coherence(vectors: Vectors) -> float | None:
    """Return the mean cosine between two different vectors, -1..1; None for fewer than two."""
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    squares = np.square(vectors, dtype=np.float64).sum()
    return float((total @ total - squares) / (count * (count - 1)))


def compare_coherences(vectors: Vectors, groups: Mapping[str, Sequence[int]], seed: int) -> dict[str, CoherenceTest]:
    """Compare the coherence of each group of rows, of two or more, with as many rows drawn at random.

    Permutation test: the group is counted among the random sets (Phipson and Smyth 2010), which are drawn once for
    each size, without replacement.
    """
    random_coherences: dict[int, NDArray[np.float64]] = {}
    tests = {}
    for name, rows in groups.items():
        size = min(len(rows), MAX_MEMBERS)
        members = np.asarray(rows, np.int64)[np.linspace(0, len(rows) - 1, size).astype(int)]
        coherence = compute_coherence(vectors[members])
        if coherence is None:
            continue
        if size not in random_coherences:
            rng = np.random.default_rng([seed, size])
            sets = (rng.choice(len(vectors), size, replace=False, shuffle=False) for _ in range(RANDOM_SETS))
            random_coherences[size] = np.array([compute_coherence(vectors[subset]) for subset in sets], np.float64)
        as_coherent = int((random_coherences[size] >= coherence - 1e-9).sum())
        random = float(random_coherences[size].mean())
        tests[name] = CoherenceTest(coherence, random, (1 + as_coherent) / (1 + RANDOM_SETS))
    return tests
