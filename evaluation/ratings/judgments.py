"""Raters' answers as the table of judgments: everything that came from a server is checked again.

What does not count is set aside with a reason and stays in the table.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from canvas.pins.tables import JUDGMENTS
from canvas.ranges import Natural, Share

Judgment = dict[str, Any]  # a row of tables.JUDGMENTS


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingRules:
    """Limits beyond which everything that a rater said is set aside."""

    min_checks: Natural  # attention checks that must have been answered
    max_failed_checks: Share  # share of them that may be failed
    max_contradictions: Share  # share of repeats in which the other image may be chosen than before


def build_judgments(answers: Iterable[Mapping[str, Any]], key: Mapping[str, Any]) -> list[Judgment]:
    """Build judgments, sorted, from `answers` to the items of `key` (evaluation.ratings.packets).

    answers: rater, item_id, question, answer, given_ms, status, completed_by, completed_ms, all of it checked.
    """
    questions = {(question["kind"], question["name"]): question["answers"] for question in key["questions"]}
    latest: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for answer in sorted(answers, key=lambda answer: answer["given_ms"]):
        latest[answer["rater"], answer["item_id"], answer["question"]] = answer
    rows = [
        _build_judgment(answer, key["items"].get(answer["item_id"]), questions, key["name"])
        for answer in latest.values()
    ]
    _set_aside_incomplete(rows, key)
    rules = RatingRules(**key["rules"])
    for rater in {row["rater"] for row in rows}:
        rater_rows = [row for row in rows if row["rater"] == rater]
        if reason := check_reliability([row for row in rater_rows if row["set_aside"] is None], key, rules):
            for row in rater_rows:
                row["set_aside"] = row["set_aside"] or reason
    return _sort_judgments(rows)


def merge_judgments(earlier: Sequence[Judgment], fresh: Sequence[Judgment]) -> list[Judgment]:
    """Return the `fresh` judgments, and the `earlier` ones that they do not say anew, sorted: a server that has lost
    answers takes none back."""
    anew = {row["judgment_id"] for row in fresh}
    return _sort_judgments([*(row for row in earlier if row["judgment_id"] not in anew), *fresh])


def describe_raters(rows: Sequence[Judgment]) -> list[str]:
    """Return a line for each rater: how many judgments count, and why others do not."""
    lines = []
    for rater in sorted({row["rater"] for row in rows}):
        rater_rows = [row for row in rows if row["rater"] == rater]
        aside = Counter(row["set_aside"] for row in rater_rows if row["set_aside"])
        reasons = "".join(f"; {count} set aside: {why}" for why, count in sorted(aside.items()))
        lines.append(f"{rater}: {len(rater_rows) - aside.total()} count{reasons}")
    return lines


def check_reliability(rows: Sequence[Judgment], key: Mapping[str, Any], rules: RatingRules) -> str | None:
    """Return why no judgment of a rater counts (`rows`, all of that rater); None: they do.

    A tie fails an attention check; a repeat contradicts only if both times an image was chosen, and not the same.
    """
    items = key["items"]
    checks = [row for row in rows if row["attention"]]
    failed = [row for row in checks if row["value"] != items[row["item_id"]]["expected"]]
    answered, wrong = (len({row["item_id"] for row in group}) for group in (checks, failed))
    if answered < rules.min_checks:
        return f"answered {answered} attention checks, {rules.min_checks} are needed"
    if answered and wrong / answered > rules.max_failed_checks:
        return f"failed {wrong} of {answered} attention checks"
    values = {(row["item_id"], row["question"]): row["value"] for row in rows}
    repeats = [
        (values[items[item]["repeat_of"], question], 1 - value)
        for (item, question), value in values.items()
        if (items[item]["repeat_of"], question) in values
    ]
    contradictions = sum({before, after} == {0.0, 1.0} for before, after in repeats)
    if repeats and contradictions / len(repeats) > rules.max_contradictions:
        return f"chose the other picture in {contradictions} of {len(repeats)} repeats"
    return None


def _sort_judgments(rows: Iterable[Judgment]) -> list[Judgment]:
    return sorted(rows, key=lambda row: (row["rater"], row["item_id"], row["question"]))


def _build_judgment(
    answer: Mapping[str, Any],
    item: Mapping[str, Any] | None,
    questions: Mapping[tuple[str, str], Mapping[str, float]],
    packet: str,
) -> Judgment:
    rater, item_id, question, words = (str(answer[name]) for name in ("rater", "item_id", "question", "answer"))
    name = f"{packet} {rater} {item_id} {question}"
    row: Judgment = dict.fromkeys(JUDGMENTS.names) | {
        "judgment_id": "j" + hashlib.sha256(name.encode()).hexdigest()[:15],
        "item_id": item_id,
        "rater": rater,
        "question": question,
        "source": "human",
        "attention": False,
    }
    if answer["completed_ms"] is not None:
        row["timestamp"] = datetime.fromtimestamp(answer["completed_ms"] / 1000, UTC)
    if item is None:
        return row | {"set_aside": "the packet has no such item"}
    row |= {name: item[name] for name in ("kind", "first", "second", "first_model", "second_model")}
    row["attention"] = item["expected"] is not None
    allowed = questions.get((item["kind"], question), {})
    if answer["status"] != "complete":
        row["set_aside"] = f"the item is {answer['status']}, not submitted"
    elif answer["completed_by"] != rater:
        row["set_aside"] = f"submitted by {answer['completed_by']!r}, not by the rater whose queue it is"
    elif words not in allowed:
        row["set_aside"] = f"{words!r} is none of the answers {', '.join(allowed) or 'to a question of the packet'}"
    else:
        row["value"] = allowed[words]
    return row


def _set_aside_incomplete(rows: Sequence[Judgment], key: Mapping[str, Any]) -> None:
    """Set aside items with questions left out: whoever answers only the easy ones would count for too much."""
    names: dict[str, set[str]] = defaultdict(set)
    for question in key["questions"]:
        names[question["kind"]].add(question["name"])
    usable = [row for row in rows if row["set_aside"] is None]
    answered: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in usable:
        answered[row["rater"], row["item_id"]].add(row["question"])
    for row in usable:
        if missing := names[row["kind"]] - answered[row["rater"], row["item_id"]]:
            row["set_aside"] = f"the item was submitted without an answer to {', '.join(sorted(missing))}"
