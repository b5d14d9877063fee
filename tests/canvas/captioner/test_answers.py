import pytest

from canvas.captioner.answers import REMINDER, parse_answer, parse_sentence, remove_prompt


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("Red mug, in a forest", "red mug, in a forest"),
        ("\n **White  sneaker**, on a wooden floor.\n", "white sneaker, on a wooden floor"),
        ('"Lamp, beside a sofa"', "lamp, beside a sofa"),
        ("none, a beach at sunset", "a beach at sunset"),
        ("No product, a beach", "a beach"),
        ("mug in a forest", None),
        ("mug, plate, on a table", None),
        ("mug, ", None),
        (", in a forest", None),
        ("12, 34", None),
        ("Sure! Here it is:\nmug, in a forest", None),
        ("The image that you have given me shows on its left side a mug, which stands on a table", None),
        ("", None),
    ],
)
def test_answers_in_the_form_become_captions(text: str, caption: str | None) -> None:
    assert parse_answer(text) == caption


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a red mug on a wooden table", "a red mug, on a wooden table"),
        ("a lamp beside a sofa, in front of a window.", "a lamp, beside a sofa in front of a window"),
        ("a red mug", None),
        ("on a table", None),
        ("a mug on", None),
    ],
)
def test_sentences_are_parted_where_the_place_begins(text: str, caption: str | None) -> None:
    assert parse_sentence(text) == caption


def test_prompt_is_removed_in_any_case() -> None:
    assert remove_prompt("a photo of  a mug", "A photo of") == "a mug"
    assert remove_prompt("a mug", "A photo of") == "a mug"


def test_reminder_is_no_answer() -> None:
    assert parse_answer(REMINDER) is None
