import pytest

from evaluation.measures.styles import compute_label_agreement, find_majority


def test_most_have_a_label_or_none_has():
    assert find_majority(["a", "b", None, "a"]) == ("a", 2 / 3)
    assert find_majority([None]) == (None, 0.0)


def test_agreement_needs_two_labels():
    assert compute_label_agreement([0, 0, 1, 1, 2], ["a", "a", "b", "b", None]) == pytest.approx(1)
    assert compute_label_agreement([0, 1], ["a", None]) is None
