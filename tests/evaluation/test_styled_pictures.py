from __future__ import annotations

import numpy as np
from PIL import Image

from canvas.data.product_pins import ProductPin
from canvas.data.style_pins import StylePin
from evaluation.styled_pictures import Asked, Subject, asked, followed

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
    styles, chosen = followed(subjects, BY_SCENE, count=2, together=2)
    names = [[styles[place].pin_id for place in own] for own in chosen]
    assert names == [["f1", "l0"], ["f0", "l0"], ["f1", "l1"], ["f1", "l1"]]
    _, more = followed(subjects[:2], BY_SCENE, count=9, together=2)
    assert [len(own) for own in more] == [3, 4]  # all but those of the own product


def test_pins_of_unknown_products_follow_all_but_themselves():
    by_scene = {"forest": [style("f0", "forest", None)]}
    assert followed([subject("f0", None), subject("s1", None)], by_scene, 3, 1)[1] == [[], [0]]


def test_what_is_asked_and_what_needs_no_painting_twice():
    wanted = asked([[0, 1], [1]], strengths=(1.0,), seeds=2, seed=5)
    assert len(wanted) == 3 * 2 * 2 * 2
    assert len({one.same for one in wanted}) == len(wanted) - 2  # subject 0 without prompt and style: two seeds once
    assert Asked(0, 0, 0.0, False, 5).same == Asked(0, 1, 0.0, False, 5).same
    assert Asked(0, 0, 0.0, True, 5).same != Asked(0, 1, 0.0, True, 5).same
