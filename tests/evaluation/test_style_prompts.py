from __future__ import annotations

import numpy as np
import pytest

from evaluation.style_prompts import StyleScore, agreements, by_strength, curve, diversity, standardised, style_figures

BASE = {
    "strength": 1.0,
    "prompted": False,
    "item": (0, 0),
    "product_scene": "forest",
    "style_scene": "lobby",
    "seen": "lobby",
    "style_agreement": 0.5,
    "other_agreement": 0.1,
    "text_agreement": None,
    "core_difference": 0,
    "leaked": None,
}


def score(**changes) -> StyleScore:
    return StyleScore(**BASE | changes)


def test_a_scene_follows_only_where_the_product_came_in_another():
    scores = [score(), score(seen="forest"), score(product_scene="lobby", seen="forest"), score(style_scene=None)]
    found = style_figures(scores)
    assert found["scene_follows"] == 0.5  # of the first two
    assert found["style_scene"] == pytest.approx(1 / 3)
    assert found["style_agreement_gain"] == pytest.approx(0.4)
    assert "leakage" not in found
    assert "text_agreement" not in found


def test_leaks_count_where_they_can_be_told_and_the_worst_core_is_named():
    found = style_figures([score(leaked=True), score(leaked=False, core_difference=3), score()])
    assert found["leakage"] == 0.5
    assert found["core_max_abs_diff"] == 3


def test_strengths_and_prompts_stand_apart():
    scores = [
        score(strength=0.0, seen="forest"),
        score(strength=0.0, prompted=True, text_agreement=0.3),
        score(),
        score(prompted=True, text_agreement=0.2),
    ]
    found = by_strength(scores, np.eye(4, dtype=np.float32))
    assert found[0.0]["unprompted"]["scene_follows"] == 0
    assert found[1.0]["unprompted"]["scene_follows"] == 1
    header, *rows = curve(found).splitlines()
    assert header == (
        "strength,scene_follows,scene_follows_low,scene_follows_high,style_agreement,leakage,diversity,"
        "prompt_scene,text_agreement"
    )
    assert rows == ["0,0,0,0,0.5,,,1,0.3", "1,1,1,1,0.5,,,1,0.2"]


def test_diversity_is_between_seeds_of_one_item():
    features = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert diversity([(0, 0), (0, 0), (0, 1), (0, 1)], features)["diversity"] == 0.5
    assert diversity([(0, 0), (0, 1)], features[:2]) == {}


def test_agreement_with_the_own_and_with_other_styles():
    painted = np.array([[2, 0], [0, 3]], np.float32)
    styles = np.array([[1, 0], [0, 1], [0, -1]], np.float32)
    own, others = agreements(painted, styles, [0, 0], [[1, 2], [1]])
    assert own.tolist() == [1, 0]
    assert others.tolist() == [0, 1]


def test_standardised_features_have_no_common_direction():
    real = np.random.default_rng(0).normal(5, 0.1, (400, 8)).astype(np.float32)
    found = standardised(real, real)
    assert np.abs(found.mean(axis=0)).max() < 1e-3
    assert found.std(axis=0) == pytest.approx(np.ones(8), abs=1e-3)
