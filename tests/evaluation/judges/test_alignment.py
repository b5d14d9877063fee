from __future__ import annotations

import numpy as np
import pytest

from canvas.align.guard import GoldScore, JudgedImages
from evaluation.judges.alignment import MIN_PRODUCTS, AlignmentJudge, compute_group_diversity
from evaluation.judges.features import extract_trunk_features
from evaluation.judges.judges import Judges, fit_scene_judges

SIDE = 64


def draw_views(colour: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 20, (count, SIDE, SIDE, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def judge() -> AlignmentJudge:
    """A judge of green forests and grey lobbies, and engaged pins of both."""
    forest, lobby = draw_views((20, 90, 30), 6, 0), draw_views((150, 130, 120), 6, 1)
    views = np.concatenate([forest, lobby])
    both = fit_scene_judges(views, ["forest"] * 6 + ["lobby"] * 6, 0)
    return AlignmentJudge(Judges(("forest", "lobby"), both), extract_trunk_features(views), SIDE, 0.95)


def build_images(colour: tuple[int, int, int], prompt: str, seed: int = 2) -> JudgedImages:
    return JudgedImages(list(draw_views(colour, 4, seed)), [prompt] * 4, [0, 0, 1, 1], ["mug"] * 4, 2, {})


def build_pairs(products: int, each: int) -> JudgedImages:
    """Images of so many products, `each` of one; nobody looks at their pixels."""
    ids = [f"mug {number}" for number in range(products) for _ in range(each)]
    return JudgedImages([], [], [], ids, 2, {})


def test_images_of_the_prompted_scene_have_the_higher_gold(judge: AlignmentJudge) -> None:
    right = judge.judge(build_images((20, 90, 30), "mug, in a forest"))
    wrong = judge.judge(build_images((150, 130, 120), "mug, in a forest"))
    assert right.gold > 0.5 > wrong.gold
    assert len(right.values) == 4
    assert right.figures["diversity"] > 0
    assert right.figures["scene_accuracy"] == right.figures["scene_accuracy_sharp"] == 1
    assert wrong.columns["scene_accuracy"] == (0, 0, 0, 0)


def test_without_a_known_scene_likeness_to_engaged_pins_counts(judge: AlignmentJudge) -> None:
    alike = judge.judge(build_images((20, 90, 30), "mug, at home"))
    strange = judge.judge(build_images((250, 0, 250), "mug, at home"))
    assert alike.gold > strange.gold
    assert alike.figures["kid_engaged"] < strange.figures["kid_engaged"]


def test_images_whose_prompt_names_no_scene_do_not_count_beside_others(judge: AlignmentJudge) -> None:
    images = build_images((20, 90, 30), "mug, in a forest")
    images.prompts[2:] = ["mug, at home"] * 2
    score = judge.judge(images)
    assert np.isnan(score.values).tolist() == [False, False, True, True]
    assert np.isnan(score.columns["scene_accuracy"]).tolist() == [False, False, True, True]
    assert np.isfinite(score.gold)


def score(values: list[float], distance: float = 0.1, diversity: float = 0.2) -> GoldScore:
    figures = {"kid_engaged": distance, "kid_engaged_error": 0.01, "diversity": diversity}
    return GoldScore(float(np.mean(values)), tuple(values), figures=figures)


@pytest.mark.parametrize(
    ("gains", "distance", "is_better", "reason"),
    [
        ([0.1] * 2 * MIN_PRODUCTS, 0.1, True, "the judge prefers it to the start"),
        ([-0.1] * 2 * MIN_PRODUCTS, 0.1, False, "the judge does not prefer it to the start"),
        ([0.5, 0.5, -0.5, -0.5] * MIN_PRODUCTS, 0.1, False, "the judge does not prefer it to the start"),
        ([0.1] * 2 * MIN_PRODUCTS, 0.12, False, "lie further from engaged pins"),
        ([0.1] * 4, 0.1, False, f"the judge saw 2 products: it needs {MIN_PRODUCTS}"),
    ],
)
def test_only_a_sure_gain_is_accepted(
    judge: AlignmentJudge, gains: list[float], distance: float, is_better: bool, reason: str
) -> None:
    before = [0.4] * len(gains)
    after = [value + gain for value, gain in zip(before, gains, strict=True)]
    images = build_pairs(len(gains) // 2, 2)
    verdict = judge.compare(score(before), score(after, distance), images)
    assert verdict.is_better == is_better
    assert reason in verdict.reason
    assert verdict.figures["gold_gain"] == pytest.approx(np.mean(gains))
    assert verdict.figures["diversity_ratio"] == pytest.approx(1)


def test_images_of_one_product_are_not_independent(judge: AlignmentJudge) -> None:
    """Gains that are those of one product in ten are no sure gain, however many images it has."""
    products, each = 2 * MIN_PRODUCTS, 20
    gains = np.repeat(np.linspace(-0.2, 0.3, products), each)
    before, after = score([0.4] * len(gains)), score(list(0.4 + gains))
    by_product = judge.compare(before, after, build_pairs(products, each))
    as_many = judge.compare(before, after, build_pairs(products * each, 1))
    assert not by_product.is_better
    assert as_many.is_better
    assert by_product.figures["gold_gain_low"] < 0 < as_many.figures["gold_gain_low"]


def test_diversity_is_within_prompts() -> None:
    features = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert compute_group_diversity(features, 2) == pytest.approx(0)
    assert compute_group_diversity(features[[0, 2, 1, 3]], 2) == pytest.approx(1)


def test_a_gain_at_the_cost_of_diversity_is_refused(judge: AlignmentJudge) -> None:
    count = 2 * MIN_PRODUCTS
    verdict = judge.compare(score([0.4] * count), score([0.6] * count, diversity=0.18), build_pairs(count // 2, 2))
    assert not verdict.is_better
    assert "less diverse, 0.90 of the start's: at least 0.95" in verdict.reason
