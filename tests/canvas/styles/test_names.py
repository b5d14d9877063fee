import pytest

from canvas.styles.build import has_phrase, name_groups, number_repeats


def test_a_name_is_what_the_group_says_and_others_do_not():
    groups = [
        ["in the desert at dawn", "in the desert at dawn", "in a lobby"],
        ["in a lobby", "in the lobby", "in a bright lobby"],
        ["on a park meadow in the sun", "on a green park meadow"],
    ]
    assert name_groups(groups) == ["desert at dawn", "lobby", "park meadow"]


def test_groups_of_the_same_words_are_told_apart_by_number():
    names = name_groups([["in a forest"], ["in a forest"]])
    assert names == ["forest", "forest"]
    assert number_repeats([str(name) for name in names]) == ["forest", "forest 2"]


def test_no_words_give_no_name():
    assert name_groups([[], ["", "the"], ["in a forest"]]) == [None, None, "forest"]


@pytest.mark.parametrize(
    ("caption", "phrase", "contained"),
    [
        ("In a Forest, at night", "forest", True),
        ("in a rainforest", "forest", False),
        ("at dawn in the desert", "desert at dawn", False),
        ("", "forest", False),
    ],
)
def test_captions_speak_of_whole_words(caption, phrase, contained):
    assert has_phrase(caption, phrase) == contained
