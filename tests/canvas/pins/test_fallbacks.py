from __future__ import annotations

from pathlib import Path

import pytest

from canvas.pins import tables
from canvas.pins.fallbacks import Notes, choose_held_out, choose_sources, choose_splits

HELD_OUT = ("unseen_product", "unseen_both")


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (("train", "unseen_both"), HELD_OUT),
        (("train", "unseen_view"), ("unseen_view",)),
        (("train",), ("train",)),
        ((), HELD_OUT),
    ],
)
def test_other_splits_stand_for_those_that_nothing_is_of(present: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    notes = Notes()
    assert choose_splits(present, HELD_OUT, notes) == chosen
    assert bool(notes.to_metrics()) == (chosen != HELD_OUT)


def test_pins_of_training_are_scored_where_none_is_held_out() -> None:
    notes = Notes()
    assert choose_held_out({"a": "train", "b": "unseen_view"}, notes) == {"b": "unseen_view"}
    assert notes.to_metrics() == {}
    assert choose_held_out({"a": "train"}, notes) == {"a": "train"}
    assert notes.to_metrics() == {"notes": ["no pin is held out, so pins that training saw were scored"]}


@pytest.mark.parametrize(
    ("wanted", "pins", "chosen"),
    [
        (["alt", "title"], {"a", "b"}, ("alt", "title")),
        (["alt"], {"a", "b"}, ("title",)),
        (["alt"], {"b"}, ("generated",)),
        (["alt+title"], {"a"}, ("alt+title",)),
        (["alt+title"], {"b"}, ("generated",)),
        (["alt"], {"c"}, ("alt",)),  # who has no caption at all is told so by who reads them
    ],
)
def test_a_source_stands_for_one_that_no_pin_has(
    tmp_path: Path, wanted: list[str], pins: set[str], chosen: tuple[str, ...]
) -> None:
    captions = (("a", "title", "Mug"), ("a", "generated", "mug, in a forest"), ("b", "generated", "jug, in a lobby"))
    rows = [dict(zip(tables.CAPTIONS.names, row, strict=True)) for row in captions]
    tables.write_rows(tmp_path / "captions", rows, tables.CAPTIONS)
    notes = Notes()
    assert choose_sources(tmp_path / "captions", pins, wanted, notes) == chosen
    assert bool(notes.to_metrics()) == (chosen != tuple(wanted))


def test_a_note_is_told_once_and_stays_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    notes = Notes()
    for _ in range(2):
        notes.add("no pin of 'x', so y (train) stood for it")
    assert capsys.readouterr().err == "note: no pin of 'x', so y (train) stood for it\n"
    assert notes.to_metrics() == {"notes": ["no pin of 'x', so y (train) stood for it"]}
