from __future__ import annotations

from typing import Any

import pytest

from canvas.pins import tables
from canvas.pins.tables import JUDGMENTS
from evaluation.ratings.judgments import build_judgments, merge_judgments
from lifecycle.workspace.digest import digest

RULES = {"min_checks": 2, "max_failed_checks": 0.4, "max_contradictions": 0.4}


def key(*questions: str, **rules: Any) -> dict[str, Any]:
    """Two pairs, the first of them again, three checks and a picture alone."""
    pair = {"kind": "pairwise", "first": "a", "second": "b", "first_model": "new", "second_model": "old"}
    plain = {"expected": None, "repeat_of": None}
    return {
        "name": "p1",
        "rules": RULES | rules,
        "questions": [
            {"name": name, "kind": "pairwise", "answers": {"A": 1.0, "B": 0.0, "No difference": 0.5}}
            for name in questions or ("preference",)
        ]
        + [{"name": "defects", "kind": "absolute", "answers": {"Nothing": 1.0, "Something": 0.0}}],
        "items": {
            "one": pair | plain,
            "two": pair | plain | {"first": "c", "second": "d"},
            "one-again": pair
            | {"first": "b", "second": "a", "first_model": "old", "second_model": "new"}
            | {"expected": None, "repeat_of": "one"},
            "check-1": pair | {"expected": 1.0, "repeat_of": None},
            "check-2": pair | {"expected": 0.0, "repeat_of": None},
            "check-3": pair | {"expected": 1.0, "repeat_of": None},
            "alone": pair | plain | {"kind": "absolute", "second": None, "second_model": None},
        },
    }


def answer(item: str, words: str = "A", **changed: Any) -> dict[str, Any]:
    given = {"rater": "anna", "item_id": item, "question": "preference", "answer": words, "status": "complete"}
    return given | {"completed_by": "anna", "completed_ms": 1_700_000_000_000, "given_ms": 1} | changed


CHECKS = [answer("check-1"), answer("check-2", "B"), answer("check-3")]


def reasons(rows: list[dict[str, Any]]) -> dict[str, str | None]:
    return {row["item_id"]: row["set_aside"] for row in rows}


def test_answers_become_values_for_what_stood_on_the_left() -> None:
    rows = build_judgments([*CHECKS, answer("one"), answer("two", "No difference"), answer("one-again", "B")], key())
    assert {row["item_id"]: row["value"] for row in rows} == {
        "one": 1.0,
        "two": 0.5,
        "one-again": 0.0,
        "check-1": 1.0,
        "check-2": 0.0,
        "check-3": 1.0,
    }
    assert set(reasons(rows).values()) == {None}
    one = next(row for row in rows if row["item_id"] == "one")
    assert (one["first"], one["second_model"], one["kind"], one["source"]) == ("a", "old", "pairwise", "human")
    assert one["timestamp"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert [row["attention"] for row in rows if row["item_id"].startswith("check")] == [True] * 3
    assert len({row["judgment_id"] for row in rows}) == 6


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (answer("one", "C"), "'C' is none of the answers A, B, No difference"),
        (answer("one", "1"), "'1' is none of the answers A, B, No difference"),
        (answer("one", question="defects"), "'A' is none of the answers to a question of the packet"),
        (answer("one", status="pending", completed_by=None, completed_ms=None), "the item is pending, not submitted"),
        (answer("one", status="declined"), "the item is declined, not submitted"),
        (answer("one", completed_by="ben"), "submitted by 'ben', not by the rater whose queue it is"),
        (answer("one", completed_by=None), "submitted by None, not by the rater whose queue it is"),
        (answer("of-another-packet"), "the packet has no such item"),
    ],
)
def test_what_a_server_says_is_checked_again(wrong: dict[str, Any], reason: str) -> None:
    rows = build_judgments([*CHECKS, answer("two"), wrong], key())
    assert reasons(rows)[wrong["item_id"]] == reason
    assert next(row for row in rows if row["item_id"] == "two")["set_aside"] is None


def test_an_item_with_a_question_left_out_does_not_count() -> None:
    wanted = key("preference", "fidelity", min_checks=0)
    whole = [answer("two"), answer("two", question="fidelity")]
    rows = build_judgments([answer("one"), *whole], wanted)
    assert reasons(rows) == {"one": "the item was submitted without an answer to fidelity", "two": None}


def test_an_answer_that_was_changed_counts_as_changed() -> None:
    rows = build_judgments([answer("one", "B", given_ms=2), *CHECKS, answer("one", given_ms=1)], key())
    assert [row["value"] for row in rows if row["item_id"] == "one"] == [0.0]


def test_a_rater_who_fails_checks_is_set_aside_and_kept() -> None:
    careless = [answer("check-1", "B"), answer("check-2", "No difference"), answer("check-3"), answer("one")]
    other = [one | {"rater": "ben", "completed_by": "ben"} for one in [*CHECKS, answer("one")]]
    rows = build_judgments([*careless, *other], key())
    assert {row["set_aside"] for row in rows if row["rater"] == "anna"} == {"failed 2 of 3 attention checks"}
    assert {row["set_aside"] for row in rows if row["rater"] == "ben"} == {None}
    assert len(rows) == 8
    assert reasons(build_judgments([answer("check-1"), answer("one")], key()))["one"] == (
        "answered 1 attention checks, 2 are needed"
    )
    one_failed = [answer("check-1", "B"), *CHECKS[1:], answer("one")]
    assert set(reasons(build_judgments(one_failed, key())).values()) == {None}


@pytest.mark.parametrize(("again", "counts"), [("B", True), ("No difference", True), ("A", False)])
def test_a_rater_who_chooses_the_left_one_twice(again: str, counts: bool) -> None:
    rows = build_judgments([*CHECKS, answer("one", "A"), answer("one-again", again)], key())
    expected = None if counts else "chose the other picture in 1 of 1 repeats"
    assert set(reasons(rows).values()) == {expected}


def test_a_picture_alone() -> None:
    rows = build_judgments([*CHECKS, answer("alone", "Something", question="defects")], key())
    alone = next(row for row in rows if row["item_id"] == "alone")
    assert (alone["value"], alone["second"], alone["kind"]) == (0.0, None, "absolute")


def test_the_table_keeps_other_packets_and_has_fixed_bytes(tmp_path: Any) -> None:
    earlier = build_judgments([answer("old")], key() | {"items": {"old": key()["items"]["one"]}})
    fresh = build_judgments([*CHECKS, answer("one")], key())
    rows = merge_judgments(earlier + build_judgments([answer("one", "B")], key()), fresh)
    assert [row["value"] for row in rows if row["item_id"] == "one"] == [1.0]
    assert [row["item_id"] for row in rows] == sorted(["old", "one", "check-1", "check-2", "check-3"])
    tables.write_rows(tmp_path / "first", rows, tables.JUDGMENTS)
    tables.write_rows(tmp_path / "second", tables.read(tmp_path / "first").to_pylist(), tables.JUDGMENTS)
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    tables.write_rows(tmp_path / "empty", [], tables.JUDGMENTS)
    assert tables.read(tmp_path / "empty").to_pylist() == []
    assert set(rows[0]) == set(JUDGMENTS.names)


def test_answers_that_a_server_lost_stay() -> None:
    before = build_judgments([*CHECKS, answer("one"), answer("old")], key())
    fresh = build_judgments([answer("one", "B")], key())
    rows = merge_judgments(before, fresh)
    assert [row["item_id"] for row in rows] == [row["item_id"] for row in before]
    assert next(row for row in rows if row["item_id"] == "one") == fresh[0]
    assert merge_judgments(before, []) == before
