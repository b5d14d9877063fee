from __future__ import annotations

import numpy as np
import pytest

from canvas.filters.relevance import RelevanceScorer, SentenceEncoder, TextLengthScorer


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def relevance(*row: str | None) -> float | None:
    (scores,) = RelevanceScorer()(*[[text] for text in row])
    value: float | None = scores["relevance"]
    return value


def test_a_paraphrase_is_nearer_than_another_subject(encoder: SentenceEncoder) -> None:
    shoes, sneakers, taxes = map(encoder, ("White shoes", "A pair of white sneakers", "How to file a tax return"))
    assert np.linalg.norm(shoes) == pytest.approx(1, abs=1e-5)
    assert shoes @ sneakers > 0.6 > 0.3 > shoes @ taxes


def test_a_long_text_is_read_from_its_beginning(encoder: SentenceEncoder) -> None:
    start = "White plimsolls. " * 40
    np.testing.assert_array_equal(encoder(start), encoder(start + "Grandma's lasagne recipe."))


def test_texts_of_one_pin_agree_and_those_of_another_do_not() -> None:
    filed = ("White Plimsolls in a forest", "Sneaker love", "Footwear")
    ours = relevance("White Plimsolls in a forest", "Step into summer.", *filed)
    other = relevance("Grandma's lasagne recipe", "Layer pasta, ragu and bechamel.", *filed)
    assert ours is not None
    assert other is not None
    assert ours > 0.9 > 0.4 > other


@pytest.mark.parametrize("row", [("A title", None, "", " ", None), ("", " \n", "Alt", "Board", "Category")])
def test_one_side_silent_says_nothing(row: tuple[str | None, ...]) -> None:
    assert relevance(*row) is None


def test_white_space_has_no_length() -> None:
    rows = list(TextLengthScorer()([" \n", "Mug", None], ["", " red ", None], [None, "", ""]))
    assert [row["text_length"] for row in rows] == [0, 6, 0]
