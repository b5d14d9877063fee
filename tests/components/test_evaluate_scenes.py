from __future__ import annotations

from typing import Any

import pytest

from components.evaluate_scenes import evaluate_scenes
from tests.components.mugs import tiny


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"products": 0}, "'products' in section 'evaluate_scenes' is 0: it must be 1 or more"),
        ({"splits": []}, r"'splits' in section 'evaluate_scenes' is \[\]: give 1 or more"),
        ({"real_pins": 1}, "'real_pins' in section 'evaluate_scenes' is 1: it must be 2 or more"),
        ({"canvas": "tall"}, "evaluate_scenes.canvas: the canvas 'tall' is not understood: give WIDTHxHEIGHT or"),
        ({"formats": {"pin": "8x8"}}, "evaluate_scenes.formats.pin: a canvas of 8 x 8 pixels is too small: give 16"),
        ({"sheet_rows": 3}, "evaluate_scenes.sheet_rows is 3: give at most 1, as products and scenes allow"),
        ({"rows": 3}, "'rows' in section 'evaluate_scenes' is unknown"),
    ],
)
def test_params_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(evaluate_scenes, **changes)


def test_a_format_may_be_known_by_its_name() -> None:
    assert tiny(evaluate_scenes, formats={"pin": "pin"})["evaluate_scenes"].formats["pin"] == "pin"
