import numpy as np
import pytest

from canvas.features.vectors import normalize_vectors
from canvas.styles import clusters
from canvas.styles.clusters import compare_coherences, compute_coherence


def test_coherence_is_the_mean_cosine_of_pairs():
    vectors = normalize_vectors(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
    assert compute_coherence(vectors) == pytest.approx((0 + 2 * 0.5**0.5) / 3, abs=1e-6)
    assert compute_coherence(vectors[:1]) is None


def test_only_groups_with_a_style_cohere_beyond_chance():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 16)).astype(np.float32)
    vectors[:40, 0] += 2.0
    coherences = compare_coherences(
        normalize_vectors(vectors), {"styled": range(40), "mixed": range(0, 400, 10), "one": [3]}, seed=0
    )
    assert set(coherences) == {"styled", "mixed"}
    own, random, chance = coherences["styled"]
    assert own > random + 0.1
    assert chance == 1 / (1 + clusters.RANDOM_SETS)
    assert coherences["mixed"][2] > 0.05


def test_chances_are_fair():
    rng = np.random.default_rng(1)
    vectors = normalize_vectors(rng.standard_normal((200, 8)).astype(np.float32))
    groups = {str(at): rng.choice(200, 20, replace=False).tolist() for at in range(100)}
    chances = [chance for _, _, chance in compare_coherences(vectors, groups, seed=0).values()]
    assert 0.01 <= np.mean(np.array(chances) < 0.1) <= 0.25


def test_of_a_large_group_a_part_is_looked_at(monkeypatch):
    monkeypatch.setattr(clusters, "MAX_MEMBERS", 10)
    monkeypatch.setattr(clusters, "RANDOM_SETS", 9)
    vectors = normalize_vectors(np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32))
    first = compare_coherences(vectors, {"all": range(100)}, seed=0)["all"]
    assert first[0] == pytest.approx(compute_coherence(vectors[[0, 11, 22, 33, 44, 55, 66, 77, 88, 99]]))
