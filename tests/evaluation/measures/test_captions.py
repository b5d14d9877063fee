import pytest

from canvas.captioner.captions import CaptionedPin
from evaluation.measures.captions import compute_caption_metrics, find_category, learn_category_nouns, score_caption

NOUNS = learn_category_nouns(
    [("apple juice", "Juices"), ("red t-shirt", "T-shirts"), ("white polo shirt", "Polo Shirts"), (None, "Places")]
)


def score(caption: str, true: str, scene: str | None, category: str = "T-shirts"):
    pin = CaptionedPin(split="unseen_view", category=category, caption=true, scene=scene, has_truth=True)
    return score_caption("p", caption, pin, NOUNS)


def test_a_noun_is_the_last_word_of_a_name_and_goes_to_its_commonest_category():
    assert NOUNS == {"juice": "Juices", "t-shirt": "T-shirts", "shirt": "Polo Shirts"}
    assert learn_category_nouns([("a shirt", "B"), ("b shirt", "A"), ("c shirt", "B")]) == {"shirt": "B"}
    assert learn_category_nouns([("a shirt", "B"), ("b shirt", "A")]) == {"shirt": "A"}


def test_the_last_known_noun_decides():
    assert find_category("t-shirt with a juice print", NOUNS) == "Juices"
    assert find_category("a lamp", NOUNS) is None


@pytest.mark.parametrize(
    ("caption", "scene", "category", "product"),
    [
        ("red t-shirt, in a forest", True, True, True),
        ("blue t-shirt, in a forest", True, True, False),
        ("apple juice, in a forest", True, False, False),
        ("red t-shirt, in a rain forester", False, True, True),
        ("in a forest", True, False, False),
        ("forest t-shirt, in a lobby", False, True, False),
    ],
)
def test_a_product_in_a_scene(caption, scene, category, product):
    scored = score(caption, "red t-shirt, in a forest", "forest")
    assert (scored.scene_right, scored.category_right, scored.product_right) == (scene, category, product)
    assert scored.white_right is None
    assert scored.alone_right is None


def test_a_product_on_white_and_a_view_alone():
    white = score("red t-shirt, on a white background", "red t-shirt, on a white background", None)
    assert white.white_right
    assert white.scene_right is None
    assert not score("red t-shirt, in a forest", "red t-shirt, on a white background", None).white_right
    assert score("in a forest", "in a forest", "forest").alone_right
    assert not score("red t-shirt, in a forest", "in a forest", "forest").alone_right


def test_metrics_count_only_what_can_be_right():
    metrics = compute_caption_metrics(
        [
            score("red t-shirt, in a forest", "red t-shirt, in a forest", "forest"),
            score("red t-shirt, in a lobby", "red t-shirt, in a forest", "forest"),
            score("in a forest", "in a forest", "forest"),
        ]
    )["unseen_view"]
    assert metrics["captions"] == 3
    assert metrics["scene_right"] == pytest.approx(2 / 3)
    assert metrics["category_right"] == 1
    assert metrics["alone_right"] == 1
    assert metrics["scene_right_low"] <= metrics["scene_right"] <= metrics["scene_right_high"]
    assert "white_right" not in metrics
