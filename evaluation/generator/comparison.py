"""Challenger against champion on the same items: the change of each measure, over all and in each slice.

Rows are those of tables.EVALUATION, one a candidate. Images of one item depend on each other, so that an interval
resamples items, each the mean over its seeds. Nothing here depends on the code of models, so no gate does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from canvas.pins.tables import CANDIDATE_MODELS, CANDIDATES
from evaluation.metrics import CANDIDATE_MEASURES, LOWER_IS_BETTER
from evaluation.statistics.intervals import Interval, bootstrap_mean, compute_sign_flip_p_value

Row = Mapping[str, Any]
Pair = tuple[Row, Row]  # the champion's row, the challenger's


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Images of one product and prompt from the same seed; without a champion the left is a pasted product or none."""

    prompt: str
    category: str | None
    champion: bytes | None
    challenger: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """One measure of both models; `difference` is challenger minus champion over the same items, if there is one."""

    name: str
    champion: float | None
    challenger: float
    difference: Interval | None
    higher_is_better: bool
    guarded: bool  # a gate watches it
    loss_by_chance: float | None = None  # p-value of a loss as large; None: no difference known

    @property
    def change(self) -> Literal["better", "worse", "same", "new"]:
        """Return to which side the difference's interval leaves zero, if it does."""
        if self.difference is None:
            return "new"
        if self.difference.low <= 0 <= self.difference.high:
            return "same"
        return "better" if (self.difference.low > 0) == self.higher_is_better else "worse"


def list_measures(rows: Iterable[Row]) -> list[str]:
    """Return the sorted names of the measures in rows: numbers that do not identify a candidate."""
    names = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    return sorted(names - set(CANDIDATES.names))


def select_model(rows: Iterable[Row], model: str) -> list[Row]:
    """Return the rows of one of tables.CANDIDATE_MODELS."""
    return [row for row in rows if row["model"] == model]


def group_by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return model -> its rows, in the order of tables.CANDIDATE_MODELS; models without rows are left out."""
    return {model: selected for model in CANDIDATE_MODELS if (selected := select_model(rows, model))}


def pair_rows(challenger: Iterable[Row], champion: Iterable[Row]) -> list[Pair]:
    """Return pairs of the same item and seed, in the challenger's order."""
    by_seed = {(row["item_id"], row["seed"]): row for row in champion}
    return [(by_seed[key], row) for row in challenger if (key := (row["item_id"], row["seed"])) in by_seed]


def compute_deltas(challenger: Sequence[Row], champion: Sequence[Row], *, guarded: Collection[str] = ()) -> list[Delta]:
    """Return each measure of the challenger, with its difference from the champion's where both have it.

    A score that is missing or not finite leaves its image out of that measure.
    """
    pairs = pair_rows(challenger, champion)
    deltas = []
    for name in list_measures(challenger):
        compared = [pair for pair in pairs if all(_read_finite(row, name) is not None for row in pair)]
        challenger_values = [value for row in challenger if (value := _read_finite(row, name)) is not None]
        if challenger_values:
            deltas.append(_compute_delta(name, challenger_values, compared, name in guarded))
    return deltas


def compute_slice_deltas(
    challenger: Sequence[Row], champion: Sequence[Row], by: Sequence[str], *, min_items: int, guarded: Collection[str]
) -> list[Delta]:
    """Return deltas of the guarded measures, named "measure, value", for each value of the columns `by`.

    Values with fewer than `min_items` items that both models have are left out.
    """
    pairs = pair_rows(challenger, champion)
    deltas = []
    for column in by:
        for value in sorted({str(row[column]) for _, row in pairs if row[column] is not None}):
            members = [pair for pair in pairs if str(pair[1][column]) == value]
            if len({row["item_id"] for _, row in members}) < min_items:
                continue
            before, after = zip(*members, strict=True)
            deltas += [
                replace(delta, name=f"{delta.name}, {value}")
                for delta in compute_deltas(after, before, guarded=guarded)
                if delta.guarded and delta.difference is not None
            ]
    return deltas


def select_sides(challenger: Sequence[Row], left: Sequence[Row], count: int) -> list[Side]:
    """Return images of up to `count` items, spread over all of them, one seed each; `left` rows may be missing."""
    left_rows = {(row["item_id"], row["seed"]): row for row in left} | {(row["item_id"], None): row for row in left}
    first = {row["item_id"]: row for row in reversed(challenger)}
    items = sorted(first)
    chosen = [items[index * len(items) // count] for index in range(count)] if len(items) > count else items
    return [
        Side(
            prompt=first[item]["prompt"],
            category=first[item]["category"],
            champion=(left_rows.get((item, first[item]["seed"])) or left_rows.get((item, None), {})).get("image"),
            challenger=first[item]["image"],
        )
        for item in chosen
    ]


def compare_models(
    challenger: Sequence[Row], champion: Sequence[Row], slices: Sequence[str], min_items: int
) -> list[Delta]:
    """Return the deltas of all measures that both models have, over all items and by slice."""
    whole = [
        delta
        for delta in compute_deltas(challenger, champion, guarded=CANDIDATE_MEASURES)
        if delta.difference is not None
    ]
    return whole + compute_slice_deltas(challenger, champion, slices, min_items=min_items, guarded=CANDIDATE_MEASURES)


def _compute_delta(name: str, challenger_values: Sequence[float], compared: Sequence[Pair], guarded: bool) -> Delta:
    by_item: dict[str, list[float]] = {}
    for before, after in compared:
        by_item.setdefault(after["item_id"], []).append(float(after[name]) - float(before[name]))
    by_item_means = [fmean(values) for values in by_item.values()]
    higher_is_better = name not in LOWER_IS_BETTER
    losses = [-value if higher_is_better else value for value in by_item_means]
    return Delta(
        name=name,
        champion=fmean([float(before[name]) for before, _ in compared]) if compared else None,
        challenger=fmean([float(after[name]) for _, after in compared] if compared else challenger_values),
        difference=bootstrap_mean(by_item_means) if by_item else None,
        higher_is_better=higher_is_better,
        guarded=guarded,
        loss_by_chance=compute_sign_flip_p_value(losses) if losses else None,
    )


def _read_finite(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if value is not None and math.isfinite(value) else None
