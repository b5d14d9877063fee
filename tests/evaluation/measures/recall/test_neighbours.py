import numpy as np
import pytest

from evaluation.measures.recall import neighbours
from evaluation.measures.recall.neighbours import compute_label_recall, find_nearest

ANGLES = np.radians([0, 5, 60, 64, 90])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def test_a_pin_does_not_find_itself():
    figures = compute_label_recall(VECTORS, ["a", "a", "b", "c", "b"])
    assert figures["queries"] == 4  # nobody shares c
    assert figures["recall_at_1"] == 0.5  # nearest to both of b is the c between them
    assert figures["recall_at_10"] == 1.0


def test_rows_without_a_label_are_found_but_not_asked():
    figures = compute_label_recall(VECTORS, ["a", None, "b", "b", "a"])
    assert figures["queries"] == 4
    assert figures["recall_at_1"] == 0.5


def test_some_rows_are_asked_and_all_are_searched():
    labels = ["a", "a", "b", "b", "a"]
    assert compute_label_recall(VECTORS, labels, [4])["recall_at_1"] == 0.0
    assert compute_label_recall(VECTORS, labels, [0, 2])["recall_at_1"] == 1.0


def test_nobody_to_find_gives_no_recall():
    assert compute_label_recall(VECTORS, ["a", "b", "c", "d", None]) == {"queries": 0}


def test_equal_neighbours_count_against_the_query():
    assert compute_label_recall(np.ones((3, 2), np.float32), ["a", "a", "b"])["recall_at_1"] == 0.0


def test_it_does_not_matter_how_many_are_asked_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    labels = [str(label) for label in rng.integers(5, size=40)]
    whole = compute_label_recall(vectors, labels)
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 7)
    assert compute_label_recall(vectors, labels) == pytest.approx(whole)


def test_neighbours_come_nearest_first():
    assert find_nearest(VECTORS, 3, 3) == [2, 4, 1]
