from __future__ import annotations

import numpy as np
import pytest

from evaluation.generator.best_of import compute_rank_agreement, score_best_of, select_by_halving, select_scores
from evaluation.statistics.intervals import bootstrap_mean

SCORES = np.array([[0.1, 0.9, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1]])
JUDGED = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])


def test_the_best_of_one_is_the_mean_and_the_best_of_all_is_one():
    assert score_best_of(SCORES, JUDGED, 1).tolist() == [2.5, 6.5]
    assert score_best_of(SCORES, JUDGED, 2).tolist() == [(2 + 3) / 2, (5 + 7) / 2]
    assert score_best_of(SCORES, JUDGED, 4).tolist() == [2, 5]
    assert score_best_of(SCORES, JUDGED, 3).tolist() == [2, 5]  # one whole group


@pytest.mark.parametrize("count", [0, 5])
def test_more_candidates_than_there_are_are_refused(count):
    with pytest.raises(ValueError, match=f"the best of {count} among 4"):
        score_best_of(SCORES, JUDGED, count)


def test_a_selector_that_knows_what_the_judge_thinks_gains_with_every_candidate():
    judged = np.random.default_rng(0).normal(size=(200, 16))
    by_count = [score_best_of(judged, judged, count).mean() for count in (1, 2, 4, 8, 16)]
    assert by_count == sorted(by_count)
    assert by_count[-1] > 1.5  # the expected largest of 16 standard normals is 1.77
    blind = score_best_of(np.random.default_rng(1).normal(size=(200, 16)), judged, 16)
    lift = bootstrap_mean(list(blind - score_best_of(judged, judged, 1)))
    assert lift.low < 0 < lift.high


def test_halving_keeps_only_who_was_good_so_far():
    early = np.array([[4.0, 3, 2, 1]])
    final = np.array([[1.0, 2, 3, 4]])
    assert select_by_halving({1: early}, final, {}).tolist() == [3]
    assert select_by_halving({1: early}, final, {1: 2}).tolist() == [1]
    assert select_by_halving({1: early, 2: early}, final, {1: 3, 2: 1}).tolist() == [0]
    assert select_by_halving({1: final, 2: early}, final, {1: 2, 2: 1}).tolist() == [2]
    assert select_scores(JUDGED, [3, 0]).tolist() == [4, 5]


def test_ranks_agree_or_not():
    final = np.random.default_rng(0).normal(size=(5, 8))
    assert compute_rank_agreement(np.exp(final), final) == pytest.approx(1)
    assert compute_rank_agreement(-final, final) == pytest.approx(-1)
    with pytest.raises(ValueError, match="no ranks"):
        compute_rank_agreement(np.ones((5, 8)), final)
