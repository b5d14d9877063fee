"""Challenger against champion on the same items: what each measure did, over all and in each slice.

Rows are those of an evaluation, one a candidate: who painted what for which item from which seed, and scores. Pictures
of one item depend on each other, so that an interval resamples items, each the mean over its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from canvas.pins.tables import CANDIDATES
from evaluation.statistics.intervals import Interval, bootstrap_mean
from evaluation.statistics.significance import compute_sign_flip_p_value

Row = Mapping[str, Any]
Pair = tuple[Row, Row]
"""The champion's row, the challenger's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Pictures of one product and prompt from the same seed. `champion` is what stands left: without a champion the
    product pasted on another picture, or nothing."""

    prompt: str
    category: str | None
    champion: bytes | None
    challenger: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """One measure of both; `difference` is challenger minus champion over the same items, None without a champion."""

    name: str
    champion: float | None
    challenger: float
    difference: Interval | None
    higher_is_better: bool
    guarded: bool  # a gate watches it
    loss_by_chance: float | None = None  # chance of a loss as large if nothing had changed; None: no difference known

    @property
    def change(self) -> Literal["better", "worse", "same", "new"]:
        """Whether the difference's interval leaves zero, and to which side."""
        if self.difference is None:
            return "new"
        if self.difference.low <= 0 <= self.difference.high:
            return "same"
        return "better" if (self.difference.low > 0) == self.higher_is_better else "worse"


def list_measures(rows: Iterable[Row]) -> list[str]:
    """The measures in an evaluation: numbers that don't say which candidate it is. By name."""
    names = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    return sorted(names - set(CANDIDATES.names))


def select_model(rows: Iterable[Row], model: str) -> list[Row]:
    """The rows of one of tables.CANDIDATE_MODELS."""
    return [row for row in rows if row["model"] == model]


def pair_rows(challenger: Iterable[Row], champion: Iterable[Row]) -> list[Pair]:
    """Rows of the same item and seed, in the challenger's order."""
    theirs = {(row["item_id"], row["seed"]): row for row in champion}
    return [(theirs[key], row) for row in challenger if (key := (row["item_id"], row["seed"])) in theirs]


def compute_deltas(
    challenger: Sequence[Row],
    champion: Sequence[Row],
    *,
    lower_is_better: Collection[str],
    guarded: Collection[str] = (),
    seed: int = 0,
) -> list[Delta]:
    """Each measure of the challenger, and where both have it, its difference from the champion's.

    A score that is missing or not finite leaves its picture out of that measure.
    """
    both = pair_rows(challenger, champion)
    found = []
    for name in list_measures(challenger):
        compared = [pair for pair in both if all(_read_finite(row, name) is not None for row in pair)]
        own = [value for row in challenger if (value := _read_finite(row, name)) is not None]
        if own:
            found.append(_compute_delta(name, own, compared, name not in lower_is_better, name in guarded, seed))
    return found


def compute_slice_deltas(
    challenger: Sequence[Row],
    champion: Sequence[Row],
    by: Sequence[str],
    *,
    min_items: int,
    lower_is_better: Collection[str],
    guarded: Collection[str],
    seed: int = 0,
) -> list[Delta]:
    """The guarded measures within each value of each column of `by`, where both were measured on `min_items` items or
    more; named "measure, value"."""
    both = pair_rows(challenger, champion)
    found = []
    for column in by:
        for value in sorted({str(row[column]) for _, row in both if row[column] is not None}):
            inside = [pair for pair in both if str(pair[1][column]) == value]
            if len({row["item_id"] for _, row in inside}) < min_items:
                continue
            for delta in compute_deltas(
                [row for _, row in inside],
                [row for row, _ in inside],
                lower_is_better=lower_is_better,
                guarded=guarded,
                seed=seed,
            ):
                if delta.guarded and delta.difference is not None:
                    found.append(replace(delta, name=f"{delta.name}, {value}"))
    return found


def select_sides(challenger: Sequence[Row], left: Sequence[Row], count: int) -> list[Side]:
    """Up to `count` items, spread over all of them, one seed each; without a picture for the left, none there."""
    others = {(row["item_id"], row["seed"]): row for row in left} | {(row["item_id"], None): row for row in left}
    first = {row["item_id"]: row for row in reversed(challenger)}
    items = sorted(first)
    shown = [items[index * len(items) // count] for index in range(count)] if len(items) > count else items
    return [
        Side(
            prompt=first[item]["prompt"],
            category=first[item]["category"],
            champion=(others.get((item, first[item]["seed"])) or others.get((item, None), {})).get("image"),
            challenger=first[item]["image"],
        )
        for item in shown
    ]


def _compute_delta(
    name: str, own: Sequence[float], compared: Sequence[Pair], higher_is_better: bool, guarded: bool, seed: int
) -> Delta:
    by_item: dict[str, list[float]] = {}
    for before, after in compared:
        by_item.setdefault(after["item_id"], []).append(float(after[name]) - float(before[name]))
    by_item_means = [_mean(values) for values in by_item.values()]
    losses = [-value if higher_is_better else value for value in by_item_means]
    return Delta(
        name=name,
        champion=_mean([float(before[name]) for before, _ in compared]) if compared else None,
        challenger=_mean([float(after[name]) for _, after in compared] if compared else own),
        difference=bootstrap_mean(by_item_means, seed=seed) if by_item else None,
        higher_is_better=higher_is_better,
        guarded=guarded,
        loss_by_chance=compute_sign_flip_p_value(losses, seed) if losses else None,
    )


def _read_finite(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
