"""May the challenger be champion? Numbers in, verdict out.

Measurements can refuse it: by floors and ceilings, and by a loss against the champion beyond chance in any guarded
measure, over all or in a slice. People alone can let it pass: until enough of them have rated it, it is pending.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from canvas.pins import tables
from evaluation.generator.comparison import (
    LOWER_IS_BETTER,
    Delta,
    Row,
    compute_deltas,
    compute_slice_deltas,
    pair_rows,
    select_model,
)
from evaluation.ratings.agreement import compute_win_rate, select_counted
from evaluation.statistics import significance

Outcome = Literal["pass", "fail", "pending"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateParams:
    """Names of figures are those of reports/evaluate/metrics.json, nested ones joined by dots; measures are columns of
    the evaluation."""

    ceilings: dict[str, float | None]  # figure -> what it may be at most; null: no limit
    floors: dict[str, float | None]  # figure -> what it must be at least
    guarded: tuple[str, ...]  # measures that must not get worse
    slices: tuple[str, ...]  # columns in whose values they must not get worse either
    min_items: int  # that both painted, over all and in a slice; smaller slices are not asked
    false_alarms: float  # chance that a model that is no worse is refused for any loss
    min_win_rate: float  # that people's preference must be above, with its interval
    min_judgments: int  # by people
    min_raters: int  # who gave them

    def __post_init__(self) -> None:
        if not self.guarded or min(self.min_items, self.min_judgments, self.min_raters) < 1:
            raise ValueError(f"gates need guarded measures, items, judgments and raters, 1 or more, not {self}")
        if not 0 < self.false_alarms < 1 or not 0 <= self.min_win_rate < 1:
            raise ValueError(
                f"gate.false_alarms ({self.false_alarms}) lies between 0 and 1, min_win_rate ({self.min_win_rate}) "
                "at 0 or above and below 1"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gates say, and why, in sentences."""

    outcome: Outcome
    reasons: tuple[str, ...]


def run_gate(
    gate: GateParams, challenger: str, evaluation: Path, figures: Path, champion: Path, ratings: Path
) -> tuple[str | None, Verdict]:
    """Digest of the champion (None: there is none), and the verdict on the model of digest `challenger`.

    evaluation, ratings: tables; figures: reports/evaluate/metrics.json; champion: directory with champion.json.
    """
    against = json.loads((champion / "champion.json").read_text(encoding="utf-8")).get("digest")
    return against, decide_verdict(
        gate,
        challenger,
        against,
        rows=tables.read(evaluation, [name for name in tables.EVALUATION.names if name != "image"]).to_pylist(),
        figures=json.loads(figures.read_text(encoding="utf-8")),
        judgments=tables.read(ratings).to_pylist(),
    )


def decide_verdict(
    gate: GateParams,
    challenger: str,
    champion: str | None,
    *,
    rows: Sequence[Row],
    figures: Mapping[str, Any],
    judgments: Sequence[Mapping[str, Any]],
) -> Verdict:
    """The verdict on the model of digest `challenger` against that of digest `champion`, if there is one.

    rows: tables.EVALUATION; judgments: tables.JUDGMENTS.
    """
    own = [row for row in select_model(rows, "challenger") if row["digest"] == challenger]
    theirs = [row for row in select_model(rows, "champion") if row["digest"] == champion]
    against = find_limit_violations(gate, figures) + find_missing_measures(gate, own)
    notes = ["there is no champion yet: limits decide, and people's comparison with pasted products"]
    if champion is not None:
        lost, notes = find_losses(gate, own, theirs)
        against += lost
    if against:
        return Verdict("fail", tuple(against))
    outcome, said = decide_by_ratings(gate, challenger, champion, judgments)
    return Verdict(outcome, (said, *notes))


def find_limit_violations(gate: GateParams, figures: Mapping[str, Any]) -> list[str]:
    """Which figures are not within their limits, or not there. What is not a number is beyond every limit."""
    limits = [(name, limit, "at most") for name, limit in gate.ceilings.items() if limit is not None]
    limits += [(name, limit, "at least") for name, limit in gate.floors.items() if limit is not None]
    reasons = []
    for name, limit, words in limits:
        value = _look_up_metric(figures, name)
        if value is None:
            reasons.append(f"{name} was not measured: it must be {words} {limit:g}")
        elif not (value <= limit if words == "at most" else value >= limit):
            reasons.append(f"{name} is {value:.4g}: it must be {words} {limit:g}")
    return reasons


def find_missing_measures(gate: GateParams, challenger: Sequence[Row]) -> list[str]:
    """What of the guarded measures is missing or not a number in the challenger's rows."""
    if not challenger:
        return ["the evaluation holds no picture of this model: evaluate it again"]
    reasons = []
    for name in gate.guarded:
        values = [row[name] for row in challenger if row.get(name) is not None]
        if not values:
            reasons.append(f"{name} was not measured: it is guarded")
        elif wrong := sum(not math.isfinite(value) for value in values):
            reasons.append(f"{name} is not a number in {wrong} of {len(values)} pictures")
    return reasons


def find_losses(gate: GateParams, challenger: Sequence[Row], champion: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Guarded measures, over all and by slice, that got worse beyond chance; and notes: how many were compared, and
    those that look worse but could be so by chance."""
    items = len({new["item_id"] for _, new in pair_rows(challenger, champion)})
    if items < gate.min_items:
        return [
            f"the champion painted {items} of these items, {gate.min_items} are needed to compare: keep the products, "
            "prompts and seeds that it was evaluated on"
        ], []
    direction: dict[str, Any] = {"lower_is_better": LOWER_IS_BETTER, "guarded": gate.guarded}
    compared = [delta for delta in compute_deltas(challenger, champion, **direction) if delta.guarded]
    compared += compute_slice_deltas(challenger, champion, gate.slices, min_items=gate.min_items, **direction)
    reasons = [
        f"{name} was not measured on the champion's pictures: it is guarded"
        for name in gate.guarded
        if not any(delta.name == name and delta.difference is not None for delta in compared)
    ]
    known = [delta for delta in compared if delta.loss_by_chance is not None]
    stand = significance.find_significant([float(delta.loss_by_chance or 0) for delta in known], gate.false_alarms)
    lost = [delta for delta, stands in zip(known, stand, strict=True) if stands]
    reasons += [f"worse than the champion: {_format_delta(delta)}" for delta in lost]
    notes = [f"no loss against the champion beyond chance in {len(known)} comparisons"]
    notes += [
        f"looks worse, which may be chance among so many: {_format_delta(delta)}"
        for delta in known
        if delta.change == "worse" and delta not in lost
    ]
    return reasons, notes


def decide_by_ratings(
    gate: GateParams, challenger: str, champion: str | None, judgments: Sequence[Mapping[str, Any]]
) -> tuple[Outcome, str]:
    """What people's preferences say, as far as they are about these two models."""
    usable = {row["judgment_id"]: row for row in select_counted(judgments) if _is_share(row["value"])}
    preferred = compute_win_rate(usable.values(), challenger, champion)
    against = "the champion" if champion else "pasted products"
    given, raters = (preferred.judgments, preferred.raters) if preferred else (0, 0)
    if preferred is None or given < gate.min_judgments or raters < gate.min_raters:
        text = f"{given} of {gate.min_judgments} ratings against {against} by {raters} of {gate.min_raters} raters"
        others = sum(challenger not in (row["first_model"], row["second_model"]) for row in usable.values())
        return "pending", text + (f"; {others} more are about other versions and do not count" if others else "")
    told = f"people prefer it to {against} in {preferred.rate} of pairs ({given} ratings by {raters} raters)"
    if preferred.rate.low > gate.min_win_rate:
        return "pass", told
    return "fail", f"{told}: the interval must lie above {gate.min_win_rate:g}"


def _format_delta(delta: Delta) -> str:
    assert delta.difference is not None
    assert delta.champion is not None
    change = delta.difference
    return (
        f"{delta.name}, {delta.champion:.3g} before, {delta.challenger:.3g} now "
        f"({change.mean:+.3g} [{change.low:+.3g}, {change.high:+.3g}])"
    )


def _look_up_metric(figures: Mapping[str, Any], name: str) -> float | None:
    """A number by its dotted name; None: not there."""
    value: Any = figures
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
