import numpy as np
import pytest

from canvas.features.vectors import normalize_vectors
from canvas.pins.fallbacks import Notes
from canvas.styles.clusters import cluster_vectors, compute_descriptors
from canvas.styles.spec import ClusterSpec
from lifecycle.declare.params import read_section

SPEC = {
    "numbers": (2, 3, 4, 6),
    "criterion": "silhouette",
    "criterion_pins": 90,
    "batch_size": None,
    "restarts": 3,
    "seed": 0,
}


def blobs(noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(4), 30)
    return normalize_vectors((np.eye(8)[of] + noise * rng.standard_normal((120, 8))).astype(np.float32)), of


@pytest.mark.parametrize("criterion", ["silhouette", "calinski_harabasz", "davies_bouldin"])
@pytest.mark.parametrize("batch_size", [None, 60])
def test_the_criterion_finds_the_number_that_there_is(criterion, batch_size):
    vectors, of = blobs()
    clusters = cluster_vectors(vectors, ClusterSpec(**SPEC | {"criterion": criterion, "batch_size": batch_size}))
    assert set(clusters.scores) == {2, 3, 4, 6}
    assert max(clusters.scores, key=clusters.scores.get) == 4 == len(set(clusters.labels))
    assert all(len(set(clusters.labels[of == blob])) == 1 for blob in range(4))


def test_the_same_seed_gives_the_same_clusters():
    vectors, _ = blobs(noise=0.6)
    first, second = (cluster_vectors(vectors, ClusterSpec(**SPEC)) for _ in range(2))
    assert (first.labels == second.labels).all()
    assert first.scores == second.scores


def test_what_pictures_show_is_taken_out_of_how_they_look():
    rng = np.random.default_rng(0)
    styles, products = rng.integers(3, size=300), rng.integers(5, size=300)
    raw = np.concatenate([np.eye(3)[styles], 3 * np.eye(5)[products]], axis=1)
    vectors = normalize_vectors((raw + 0.05 * rng.standard_normal(raw.shape)).astype(np.float32))
    descriptors = compute_descriptors(vectors, [str(product) for product in products])
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)

    def alike(of: np.ndarray, labels: np.ndarray) -> float:
        """How much nearer pictures of one label are than pictures of two."""
        similarity, same = of @ of.T, labels[:, None] == labels[None, :]
        return float(similarity[same].mean() - similarity[~same].mean())

    assert alike(vectors, products) > 0.8 > 0.2 > alike(vectors, styles)
    assert alike(descriptors, styles) > 0.8 > 0.2 > alike(descriptors, products)


def test_pictures_of_nothing_in_particular_keep_what_they_share():
    vectors = normalize_vectors(np.array([[1, 1, 0], [1, 1, 0.1], [1, 0, 1], [1, 0, 0.9]], np.float32))
    descriptors = compute_descriptors(vectors, [None, None, "mug", "mug"])
    centred = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(descriptors[:2], normalize_vectors(centred[:2]), atol=1e-6)
    assert not np.allclose(descriptors[2:], normalize_vectors(centred[2:]), atol=1e-2)


@pytest.mark.parametrize(
    ("numbers", "tried", "note"),
    [
        ((4, 6), [4, 6], None),
        ((4, 120, 130), [4], "120 images cannot be parted into 120, 130 clusters, so fewer were tried"),
        ((120,), [], "120 images cannot be parted into 120 clusters, so they are one"),
    ],
)
def test_numbers_beyond_the_images_are_left_out(numbers, tried, note):
    notes = Notes()
    clusters = cluster_vectors(blobs()[0], ClusterSpec(**SPEC | {"numbers": numbers, "criterion_pins": 500}), notes)
    assert sorted(clusters.scores) == tried
    assert len(set(clusters.labels)) == (4 if tried else 1)
    assert notes.to_metrics() == ({"notes": [note]} if note else {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": ()}, r"params key 'numbers' in section 'clusters' is \[\]: give 1 or more"),
        ({"numbers": (1, 4)}, r"in section 'clusters.numbers' is 1: it must be 2 or more"),
        ({"criterion_pins": 6}, "criterion_pins is 6: give more than the 6 clusters"),
        ({"restarts": 0}, "'restarts' in section 'clusters' is 0: it must be 1 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        cluster_vectors(blobs()[0], read_section(ClusterSpec, "clusters", {"clusters": SPEC | changes}))
