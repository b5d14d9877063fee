from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from PIL import Image

from canvas.pins.products import ProductPin
from canvas.styles.pins import StylePin
from evaluation.generator.style_plan import StyleTrial, plan_trials
from evaluation.generator.style_trials import Subject, assign_styles, select_comparisons

IMAGE = Image.new("RGB", (8, 8))


def style(pin: str, scene: str, product: str | None) -> StylePin:
    return StylePin(pin, IMAGE, f"in a {scene}", scene, "Mugs", product)


def subject(pin: str, product: str | None, scene: str = "forest") -> Subject:
    return Subject(ProductPin(pin, IMAGE, np.ones((8, 8), bool), "red mug", product, "Mugs"), scene)


BY_SCENE = {
    "forest": [style("f0", "forest", "a"), style("f1", "forest", "b")],
    "lobby": [style("l0", "lobby", "b"), style("l1", "lobby", "c")],
}


def test_scenes_first_never_the_own_product_and_others_in_the_next_round():
    subjects = [subject("s0", "a"), subject("s1", "x"), subject("s2", "x"), subject("s3", "x")]
    styles, chosen = assign_styles(subjects, BY_SCENE, count=2, group_size=2)
    names = [[styles[place].pin_id for place in own] for own in chosen]
    assert names == [["f1", "l0"], ["f0", "l0"], ["f1", "l1"], ["f1", "l1"]]
    _, more = assign_styles(subjects[:2], BY_SCENE, count=9, group_size=2)
    assert [len(own) for own in more] == [3, 4]  # all but those of the own product


def test_pins_of_unknown_products_follow_all_but_themselves():
    by_scene = {"forest": [style("f0", "forest", None)]}
    assert assign_styles([subject("f0", None), subject("s1", None)], by_scene, 3, 1)[1] == [[], [0]]


def test_equal_images_are_generated_once():
    trials = plan_trials([[0, 1], [1]], strengths=(1.0,), seeds=2, headline_seeds=2, seed=5)
    assert len(trials) == 3 * 2 * 2 * 2
    assert (
        len({trial.image_key for trial in trials}) == len(trials) - 2
    )  # subject 0 without prompt and style: two seeds once
    assert StyleTrial(0, 0, 0.0, False, 5).image_key == StyleTrial(0, 1, 0.0, False, 5).image_key
    assert StyleTrial(0, 0, 0.0, True, 5).image_key != StyleTrial(0, 1, 0.0, True, 5).image_key


def test_more_noises_of_the_headline_alone():
    trials = plan_trials([[0]], strengths=(1.0, 0.5), seeds=1, headline_seeds=3, seed=5)
    seeds = Counter((trial.strength, trial.prompted) for trial in trials)
    assert seeds == {(0, False): 3, (0, True): 1, (1, False): 3, (1, True): 1, (0.5, False): 1, (0.5, True): 1}
    assert {trial.seed for trial in trials if trial.strength == 1 and not trial.prompted} == {5, 6, 7}


def test_an_image_is_compared_with_other_styles():
    styles, _ = assign_styles([], BY_SCENE, count=2, group_size=1)
    assert [style.pin_id for style in styles] == ["f0", "f1", "l0", "l1"]
    assert select_comparisons(subject("s", "x"), styles, 0) == ([1], [2, 3])
    assert select_comparisons(subject("s", "b"), styles, 0) == ([], [3])  # two show the subject's product
    nowhere = [replace(style, scene=None) for style in styles]  # truth knows none: by the background's words
    assert select_comparisons(subject("s", "x"), nowhere, 0) == ([1], [2, 3])
