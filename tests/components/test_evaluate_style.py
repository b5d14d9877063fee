from __future__ import annotations

import pytest

from components.evaluate_style import compute_headline, evaluate_style
from tests.components.mugs import tiny


def test_the_headline_is_of_the_first_strength_and_the_core_of_all():
    def both(follows: float, core: int) -> dict[str, dict[str, float]]:
        figures = {"scene_follows": follows, "style_scene": follows / 2, "core_max_abs_diff": core}
        return {"unprompted": figures, "prompted": figures | {"core_max_abs_diff": 0}}

    found = compute_headline({0.0: both(0.1, 0), 0.5: both(0.4, 7), 1.0: both(0.8, 0)}, 1.0)
    assert found == {
        "scene_follows": 0.8,
        "scene_follows_without_style": 0.1,
        "prompt_scene": 0.4,
        "prompt_scene_without_style": 0.05,
        "core_max_abs_diff": 7,
    }
    found = compute_headline({0.0: both(0.1, 0), 1.0: both(0.8, 0), 1.5: both(0.9, 9)}, 1.0)
    assert found["core_max_abs_diff"] == 9


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_headline_without_diversity_is_refused(seeds):
    with pytest.raises(ValueError, match=f"headline_seeds is {seeds}: it must be 2 or more, as diversity takes two"):
        tiny(evaluate_style, headline_seeds=seeds)
