import pytest

from canvas.styles.coherence import CoherenceTest
from canvas.styles.limits import StyleLimits

LIMITS = StyleLimits(min_pins=2, min_purity=0.75, min_coherence=0.2, chance=0.05, min_gain=0.1)


def test_a_cluster_of_many_things_is_mixed():
    row = {"pins": ["a", "b", "c", "d"], "purity": 0.5, "name": "forest", "coherence": 0.9}
    assert LIMITS.find_cluster_fault(row) == "mixed: 0.50 of its captions speak of 'forest', 0.75 is needed"
    assert LIMITS.find_cluster_fault(row | {"purity": 0.75}) is None


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
    with pytest.raises(ValueError, match=r"limits need min_pins of 2 or more"):
        StyleLimits(min_pins=1, min_purity=0.75, min_coherence=0.2, chance=0.05, min_gain=0.1)
