from __future__ import annotations

import numpy as np
import pytest

from evaluation.measures.recall.retrieval import Pairs, compute_retrieval_metrics, find_hits


def test_rank_of_the_best_answer_counts():
    similarity = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], np.float32)
    answers = np.array([[True, False, False], [False, False, True]])
    assert find_hits(similarity, answers, 1).tolist() == [True, False]
    assert find_hits(similarity, answers, 3).tolist() == [True, True]


def test_ties_count_against_the_query():
    assert not find_hits(np.ones((1, 2), np.float32), np.array([[True, False]]), 1).any()


def test_a_query_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="each of the 1 queries needs an answer among 2"):
        find_hits(np.ones((1, 2), np.float32), np.zeros((1, 2), bool), 1)


def test_pins_that_share_a_caption_share_the_answer():
    axes = np.eye(3, dtype=np.float32)
    images = axes[[0, 1, 1, 2]]
    texts = axes[[0, 1, 1, 0]]  # the last text points to the wrong picture
    figures = compute_retrieval_metrics(images, texts, ["a", "b", "b", "c"])
    assert (figures["pins"], figures["captions"]) == (4, 3)
    assert figures["image_to_text_recall_at_1"] == 0.5  # both pictures of b; a ties with c, c points elsewhere
    assert figures["text_to_image_recall_at_1"] == pytest.approx(2 / 3)  # a and b
    assert figures["image_to_text_recall_at_1_low"] <= 0.5 <= figures["image_to_text_recall_at_1_high"]


def test_embeddings_are_cut_to_unit_vectors():
    pairs = Pairs(np.array([[0.6, 0.8]], np.float32), np.array([[-0.8, 0.6]], np.float32), ["mug"])
    cut = pairs.cut(1)
    np.testing.assert_allclose(cut.images, [[1]])
    np.testing.assert_allclose(cut.texts, [[-1]])
    np.testing.assert_allclose(pairs.cut(2).images, pairs.images, rtol=1e-6)
