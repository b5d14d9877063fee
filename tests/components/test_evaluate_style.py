from __future__ import annotations

import pytest

from components.evaluate_style import evaluate_style
from tests.components.mugs import tiny


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_headline_without_diversity_is_refused(seeds):
    with pytest.raises(ValueError, match=f"'evaluate_style' is {seeds}: it must be 2 or more"):
        tiny(evaluate_style, headline_seeds=seeds)
