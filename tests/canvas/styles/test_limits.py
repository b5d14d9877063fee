from dataclasses import asdict, replace

import numpy as np
import pytest

from canvas.styles.clusters import CoherenceTest
from canvas.styles.spec import StyleLimits
from canvas.styles.table import Style
from lifecycle.declare.params import read_section

LIMITS = StyleLimits(min_pins=2, min_purity=0.75, min_coherence=0.2, chance=0.05, min_gain=0.1)


def test_a_cluster_of_many_things_is_mixed():
    vector = np.ones(1, np.float32)
    cluster = Style(
        style_id="cluster-000",
        kind="cluster",
        name="forest",
        uve=vector,
        clip=vector,
        pins=("a", "b", "c", "d"),
        purity=0.5,
        coherence=0.9,
        chance=None,
        dropped=None,
    )
    assert LIMITS.find_cluster_fault(cluster) == "mixed: 0.50 of its captions speak of 'forest', 0.75 is needed"
    assert LIMITS.find_cluster_fault(replace(cluster, purity=0.75)) is None


@pytest.mark.parametrize(
    ("test", "is_significant", "fault"),
    [
        (CoherenceTest(0.5, 0.1, 0.001), True, None),
        (CoherenceTest(0.15, 0.1, 0.001), True, "a weak style: its coherence is 0.05 above chance, 0.1 is needed"),
        (
            CoherenceTest(0.5, 0.1, 0.4),
            False,
            "no style of its own: pins at random cohere as much with a chance of 0.400",
        ),
    ],
)
def test_a_board_has_a_style_of_its_own_or_a_fault(test, is_significant, fault):
    assert LIMITS.find_board_fault(test, is_significant) == fault


def test_limits_out_of_range_are_refused():
    section = asdict(LIMITS) | {"min_pins": 1, "chance": 1.0}
    message = "'min_pins' in section 'limits' is 1: it must be 2 or more.*'chance' .*it must be below 1"
    with pytest.raises(ValueError, match=message):
        read_section(StyleLimits, "limits", {"limits": section})
