from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from canvas.pins.products import ProductPin
from canvas.styles.pins import StylePin
from evaluation.generator.leakage import ProductJudge
from evaluation.generator.styled_images import (
    StyleScorer,
    StyleTrial,
    Subject,
    assign_styles,
    plan_trials,
    score_trials,
    select_comparisons,
)
from evaluation.judges.features import extract_trunk_features
from evaluation.judges.judges import Judges
from tests.evaluation.generator.test_leakage import painted

IMAGE = Image.new("RGB", (8, 8))


def style(pin: str, scene: str, product: str | None) -> StylePin:
    return StylePin(pin, IMAGE, f"in a {scene}", scene, "Mugs", product)


def subject(pin: str, product: str | None, scene: str = "forest") -> Subject:
    return Subject(ProductPin(pin, IMAGE, np.ones((8, 8), bool), "red mug"), product, "Mugs", scene)


BY_SCENE = {
    "forest": [style("f0", "forest", "a"), style("f1", "forest", "b")],
    "lobby": [style("l0", "lobby", "b"), style("l1", "lobby", "c")],
}


def test_scenes_first_never_the_own_product_and_others_in_the_next_round():
    subjects = [subject("s0", "a"), subject("s1", "x"), subject("s2", "x"), subject("s3", "x")]
    styles, chosen = assign_styles(subjects, BY_SCENE, count=2, together=2)
    names = [[styles[place].pin_id for place in own] for own in chosen]
    assert names == [["f1", "l0"], ["f0", "l0"], ["f1", "l1"], ["f1", "l1"]]
    _, more = assign_styles(subjects[:2], BY_SCENE, count=9, together=2)
    assert [len(own) for own in more] == [3, 4]  # all but those of the own product


def test_pins_of_unknown_products_follow_all_but_themselves():
    by_scene = {"forest": [style("f0", "forest", None)]}
    assert assign_styles([subject("f0", None), subject("s1", None)], by_scene, 3, 1)[1] == [[], [0]]


def test_what_is_asked_and_what_needs_no_painting_twice():
    wanted = plan_trials([[0, 1], [1]], strengths=(1.0,), seeds=2, headline_seeds=2, seed=5)
    assert len(wanted) == 3 * 2 * 2 * 2
    assert len({one.same for one in wanted}) == len(wanted) - 2  # subject 0 without prompt and style: two seeds once
    assert StyleTrial(0, 0, 0.0, False, 5).same == StyleTrial(0, 1, 0.0, False, 5).same
    assert StyleTrial(0, 0, 0.0, True, 5).same != StyleTrial(0, 1, 0.0, True, 5).same


def test_more_noises_of_the_headline_alone():
    wanted = plan_trials([[0]], strengths=(1.0, 0.5), seeds=1, headline_seeds=3, seed=5)
    seeds = Counter((one.strength, one.prompted) for one in wanted)
    assert seeds == {(0, False): 3, (0, True): 1, (1, False): 3, (1, True): 1, (0.5, False): 1, (0.5, True): 1}
    assert {one.seed for one in wanted if one.strength == 1 and not one.prompted} == {5, 6, 7}


def test_what_a_followed_picture_is_compared_with():
    styles, _ = assign_styles([], BY_SCENE, count=2, together=1)
    assert [style.pin_id for style in styles] == ["f0", "f1", "l0", "l1"]
    assert select_comparisons(subject("s", "x"), styles, 0) == ([1], [2, 3])
    assert select_comparisons(subject("s", "b"), styles, 0) == ([], [3])  # two show the subject's product
    nowhere = [replace(style, scene=None) for style in styles]  # truth knows none: by the background's words
    assert select_comparisons(subject("s", "x"), nowhere, 0) == ([1], [2, 3])


class Noting(ProductJudge):
    """Keeps the pictures that it is asked about."""

    def seen(self, views, masks):
        self.shown = views
        return super().seen(views, masks)


def test_leaks_are_put_where_the_seed_says():
    known = painted(24, seed=0)
    finder = Noting.learnt(known, seed=0)
    styles = [StylePin("m0", Image.fromarray(known.views[0]), "in a forest", "forest", "Mugs", "a")]
    pin = ProductPin("l1", Image.fromarray(known.views[1]), known.masks[1], "lamp")
    wanted = [StyleTrial(0, 0, 1.0, False, 7)]
    copies = []
    for seed in (3, 3, 4):
        by = StyleScorer(
            judges=Judges((), None),
            finder=finder,
            leaks=known,
            clip=None,
            real=extract_trunk_features(known.views[:4]),
            side=32,
            seed=seed,
        )
        score_trials(
            by, None, [Subject(pin, "c", "Lamps", "forest")], styles, wanted, [known.views[1]], {"m0": "train"}
        )
        copies.append(finder.shown)
    assert np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[0], copies[2])


def test_scores_know_split_product_and_what_would_be_seen_of_a_leak():
    """Lamps after pictures of mugs, one of which leaks."""
    known = painted(24, seed=0)
    images = [Image.fromarray(view) for view in known.views]
    styles = [
        StylePin("m0", images[0], "in a forest", "forest", "Mugs", "a"),
        StylePin("m2", images[2], "in a lobby", "lobby", "Mugs", "b"),
    ]
    pins = [ProductPin(f"l{at}", images[at], known.masks[at], "lamp") for at in (1, 5)]
    subjects = [Subject(pin, product, "Lamps", "forest") for pin, product in zip(pins, ("c", None), strict=True)]
    wanted = [StyleTrial(subject, style, 1.0, False, 7) for subject in (0, 1) for style in (0, 1)]
    leaking = known.views[1].copy()
    leaking[known.masks[2]] = known.views[2][known.masks[2]]
    by = StyleScorer(
        judges=Judges((), None),
        finder=ProductJudge.learnt(known, seed=0),
        leaks=known,
        clip=None,  # without a prompt there is no text to agree with
        real=extract_trunk_features(known.views),
        side=32,
        seed=0,
    )
    pictures = [known.views[1], leaking, known.views[5], known.views[5]]
    splits = {"m0": "unseen_view", "m2": "unseen_both"}
    scores, features = score_trials(by, None, subjects, styles, wanted, pictures, splits)
    assert len(features) == 4
    assert [score.leaked for score in scores] == [False, True, False, False]
    assert [score.leak_found for score in scores].count(True) >= 3
    assert [score.product for score in scores] == ["c", "c", "l5", "l5"]
    assert [score.style_split for score in scores] == ["unseen_view", "unseen_both"] * 2
    assert {score.seed for score in scores} == {7}
    assert {score.core_difference for score in scores} == {0}
    assert [score.scene_agreement for score in scores] == [None] * 4
    assert scores[2].style_agreement == pytest.approx(scores[3].other_agreement)
