from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evaluation.generator.style_scores import (
    StyleScore,
    average_agreements,
    compute_agreements,
    compute_diversity,
    compute_follows_by_style_split,
    compute_headline,
    compute_metrics_by_strength,
    compute_prompt_changes,
    compute_style_metrics,
    format_curve_csv,
    standardize_features,
)

BASE = {
    "strength": 1.0,
    "prompted": False,
    "seed": 0,
    "item": (0, 0),
    "product": "mug",
    "product_scene": "forest",
    "style_scene": "lobby",
    "style_split": "unseen_view",
    "seen": "lobby",
    "style_agreement": 0.5,
    "scene_agreement": 0.4,
    "other_agreement": 0.1,
    "text_agreement": None,
    "core_difference": 0,
    "leaked": None,
    "leak_detected": None,
}


def score(**changes) -> StyleScore:
    return StyleScore(**BASE | changes)


def test_a_scene_follows_only_where_the_product_came_in_another():
    scores = [score(), score(seen="forest"), score(product_scene="lobby", seen="forest"), score(style_scene=None)]
    metrics = compute_style_metrics(scores)
    assert metrics["scene_follows"] == 0.5  # of the first two
    assert metrics["style_scene"] == pytest.approx(1 / 3)
    assert metrics["style_agreement_gain"] == pytest.approx(0.4)
    assert "leakage" not in metrics
    assert "text_agreement" not in metrics


def test_leaks_count_where_they_can_be_decided_and_the_worst_core_is_named():
    metrics = compute_style_metrics(
        [score(leaked=True), score(leaked=False, leak_detected=True, core_difference=3), score()]
    )
    assert metrics["leakage"] == 0.5
    assert metrics["leakage_control"] == 1.0
    assert metrics["core_max_abs_diff"] == 3


def test_strengths_and_prompts_stand_apart():
    scores = [
        score(strength=0.0, seen="forest"),
        score(strength=0.0, prompted=True, text_agreement=0.3),
        score(),
        score(prompted=True, text_agreement=0.2),
    ]
    metrics = compute_metrics_by_strength(scores, np.eye(4, dtype=np.float32))
    assert metrics[0.0]["unprompted"]["scene_follows"] == 0
    assert metrics[1.0]["unprompted"]["scene_follows"] == 1
    header, *rows = format_curve_csv(metrics).splitlines()
    assert header == (
        "strength,scene_follows,scene_follows_low,scene_follows_high,style_agreement,leakage,diversity,"
        "prompt_scene,text_agreement"
    )
    assert rows == ["0,0,0,0,0.5,,,1,0.3", "1,1,1,1,0.5,,,1,0.2"]


def test_diversity_is_between_seeds_of_one_item():
    features = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    scores = [score(item=item, seed=seed) for item in ((0, 0), (0, 1)) for seed in (0, 1)]
    assert compute_diversity(scores, features)["diversity"] == 0.5
    assert compute_diversity(scores[::2], features[:2]) == {}


def test_agreement_with_the_own_and_with_other_styles():
    generated = np.array([[2, 0], [0, 3]], np.float32)
    styles = np.array([[1, 0], [0, 1], [0, -1]], np.float32)
    agreements = compute_agreements(generated, styles)
    assert agreements.tolist() == [[1, 0, 0], [0, 1, -1]]
    assert average_agreements(agreements[1], [0, 1]) == 0.5
    assert average_agreements(agreements[1], []) is None


def test_the_image_is_compared_with_its_scene_and_with_others_where_there_are_such():
    metrics = compute_style_metrics([score(), score(scene_agreement=None), score(other_agreement=None)])
    assert metrics["picture_agreement_gain"] == pytest.approx(0.1)
    assert metrics["style_agreement_gain"] == pytest.approx(0.4)
    assert "picture_agreement_gain" not in compute_style_metrics([score(scene_agreement=None)])


def test_images_of_a_product_or_of_a_style_image_are_not_independent():
    def width(follows: Callable[[int, int], int]) -> float:
        """Width of the interval of 12 products after 12 style images, half of which follow."""
        scores = [
            score(item=(at, style), product=str(at // 2), seen=("forest", "lobby")[follows(at // 2, style)])
            for at in range(24)
            for style in range(12)
        ]
        metrics = compute_style_metrics(scores)
        assert metrics["scene_follows"] == 0.5
        return metrics["scene_follows_high"] - metrics["scene_follows_low"]

    by_product, by_style = width(lambda product, _: product % 2), width(lambda _, style: style % 2)
    assert by_product == pytest.approx(2 * 1.96 * 0.5 / 12**0.5, rel=0.2)  # as of 12 values, not of 288
    assert by_style == pytest.approx(by_product, rel=0.2)
    assert width(lambda product, style: (product + style) % 2) < by_product / 2


def test_changes_beside_a_prompt_are_of_pairs():
    """Every pair differs by the same, whatever the images differ by: the interval is of the difference."""
    pairs = [
        score(prompted=True, strength=strength, item=(at, at % 3), product=str(at), seed=seed, text_agreement=text)
        for at in range(6)
        for seed in (0, 1)
        for strength, text in ((0.0, at / 10), (1.0, at / 10 - 0.05))
    ]
    lonely = score(prompted=True, item=(9, 9), text_agreement=0.9)
    metrics = compute_prompt_changes([*pairs, lonely, score(strength=0.0), score()], 1.0)
    for end in ("", "_low", "_high"):
        assert metrics[f"text_agreement_change{end}"] == pytest.approx(-0.05)
        assert metrics[f"prompt_scene_change{end}"] == 0
    worse = [score(prompted=True, seen="forest", text_agreement=0.0), score(prompted=True, strength=0.0)]
    metrics = compute_prompt_changes(worse, 1.0)
    assert metrics == {f"prompt_scene_change{end}": -1 for end in ("", "_low", "_high")}


def test_scenes_follow_by_the_split_of_the_style_image():
    scores = [
        score(style_split="unseen_both"),
        score(style_split="unseen_both", seen="forest"),
        score(style_split="unseen_product", product_scene="lobby"),  # says nothing
        score(),
    ]
    metrics = compute_follows_by_style_split(scores)
    assert metrics.keys() == {"unseen_both", "unseen_view"}
    assert metrics["unseen_both"] == {"pictures": 2} | {f"scene_follows{end}": 0.5 for end in ("", "_low", "_high")}


def test_standardised_features_have_no_common_direction():
    real = np.random.default_rng(0).normal(5, 0.1, (400, 8)).astype(np.float32)
    features = standardize_features(real, real)
    assert np.abs(features.mean(axis=0)).max() < 1e-3
    assert features.std(axis=0) == pytest.approx(np.ones(8), abs=1e-3)


def test_the_headline_is_of_the_first_strength_and_the_core_of_all():
    def both(follows: float, core: int) -> dict[str, dict[str, float]]:
        figures = {"scene_follows": follows, "style_scene": follows / 2, "core_max_abs_diff": core}
        return {"unprompted": figures, "prompted": figures | {"core_max_abs_diff": 0}}

    metrics = compute_headline({0.0: both(0.1, 0), 0.5: both(0.4, 7), 1.0: both(0.8, 0)}, 1.0)
    assert metrics == {
        "scene_follows": 0.8,
        "scene_follows_without_style": 0.1,
        "prompt_scene": 0.4,
        "prompt_scene_without_style": 0.05,
        "core_max_abs_diff": 7,
    }
    metrics = compute_headline({0.0: both(0.1, 0), 1.0: both(0.8, 0), 1.5: both(0.9, 9)}, 1.0)
    assert metrics["core_max_abs_diff"] == 9
