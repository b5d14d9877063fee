"""The gates: may the challenger be champion? Measurements in, verdict out.

Measurements can refuse it: by floors and ceilings, and by a loss against the champion beyond chance in any guarded
measure, over all or in a slice. People alone can let it pass: until enough of them have rated it, it is pending.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt, MinLen

from canvas.align.spec import EVIDENCE_FILE
from canvas.light.spec import LIGHT_FOLDER
from canvas.pins import tables
from canvas.ranges import Count, PartialShare
from canvas.reward.spec import REWARD_FOLDER
from evaluation.generator.comparison import Delta, Row, compute_deltas, compute_slice_deltas, pair_rows, select_model
from evaluation.judges.spec import describe_own_judges
from evaluation.metrics import get_title
from evaluation.ratings.agreement import compute_win_rate, select_counted
from evaluation.statistics.intervals import Interval, find_significant

Outcome = Literal["pass", "fail", "pending"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateParams:
    """Metrics are those of reports/evaluate/metrics.json, nested names joined by dots; measures are columns of the
    evaluation."""

    ceilings: dict[str, float | None]  # metric -> what it may be at most; null: no limit
    floors: dict[str, float | None]  # metric -> what it must be at least
    guarded: Annotated[tuple[str, ...], MinLen(1)]  # measures that must not get worse
    slices: tuple[str, ...]  # columns in whose values they must not get worse either
    min_items: Count  # that both generated, over all and in a slice; smaller slices are left out
    false_alarms: Annotated[float, Gt(0), Lt(1)]  # chance that a model that is no worse is refused for any loss
    min_win_rate: PartialShare  # that people's preference must be above, with its interval
    min_judgments: Count  # by people, of pairs that count
    min_raters: Count  # who must have rated a pair for it to count


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gates decide, and why, in sentences; digests of the challenger and of the champion, if any."""

    outcome: Outcome
    reasons: tuple[str, ...]
    challenger: str
    champion: str | None


def has_reward(model: Path, evaluation: Path) -> bool:
    """Whether the assembled model has a reward model, by its folder, or by scores in the table of its evaluation."""
    scores = tables.read(evaluation, ["reward_overall"]).column("reward_overall")
    return (model / REWARD_FOLDER).is_dir() or scores.null_count < len(scores)


def drop_rewards(gate: GateParams) -> tuple[GateParams, list[str]]:
    """Return the gates of a model without a reward model, and what is no longer asked for, in sentences."""

    def is_reward(name: str) -> bool:
        return name.startswith("instruments.reward.") or name.rpartition(".")[2].startswith("reward_")

    kept = _drop_measures(gate, is_reward)
    dropped = sorted({*gate.ceilings, *gate.floors, *gate.guarded} - {*kept.ceilings, *kept.floors, *kept.guarded})
    return kept, [f"there is no reward model: {', '.join(dropped)} are not asked for"] if dropped else []


def drop_certificates(gate: GateParams) -> GateParams:
    """Return the gates of a model without mode soft, whose images have no certificates."""
    return _drop_measures(gate, lambda name: name.rpartition(".")[2] == "certificates_failed")


def _drop_measures(gate: GateParams, is_dropped: Callable[[str], bool]) -> GateParams:
    ceilings, floors = (
        {name: limit for name, limit in limits.items() if not is_dropped(name)}
        for limits in (gate.ceilings, gate.floors)
    )
    guarded = tuple(name for name in gate.guarded if not is_dropped(name))
    return replace(gate, ceilings=ceilings, floors=floors, guarded=guarded)


def describe_alignment(figures: Mapping[str, float]) -> str:
    """Return how the aligned generator compares with the unaligned one on held-out prompts, in a sentence."""
    gain = Interval(figures["gold_gain"], figures["gold_gain_low"], figures["gold_gain_high"])
    return (
        f"aligned against unaligned, on {figures['judged_images']:.0f} held-out images each: gold {gain:+.3f}, KID "
        f"{figures['kid_engaged_change']:+.4f}, diversity {figures['diversity_ratio']:.2f} of it"
    )


def run_gate(
    gate: GateParams,
    challenger: str,
    *,
    model: Path,
    evaluation: Path,
    metrics: Path,
    champion: Path,
    ratings: Path,
) -> Verdict:
    """Return the verdict on the model of digest `challenger`; without a reward model no gate asks for rewards, without
    a light network none for certificates.

    Args:
        model: Directory of the assembled model, with the evidence of its alignment, if any.
        evaluation: Table of the evaluation.
        metrics: reports/evaluate/metrics.json.
        champion: Directory with champion.json.
        ratings: Table of judgments.
    """
    gate, notes = (gate, []) if has_reward(model, evaluation) else drop_rewards(gate)
    gate = gate if (model / LIGHT_FOLDER).is_dir() else drop_certificates(gate)
    if (alignment := model / EVIDENCE_FILE).is_file():
        notes.append(describe_alignment(json.loads(alignment.read_text(encoding="utf-8"))["figures"]))
    verdict = decide_verdict(
        gate,
        challenger,
        json.loads((champion / "champion.json").read_text(encoding="utf-8")).get("digest"),
        rows=tables.read(evaluation, [name for name in tables.EVALUATION.names if name != "image"]).to_pylist(),
        metrics=json.loads(metrics.read_text(encoding="utf-8")),
        judgments=tables.read(ratings).to_pylist(),
    )
    return replace(verdict, reasons=(*verdict.reasons, *notes))


def decide_verdict(
    gate: GateParams,
    challenger: str,
    champion: str | None,
    *,
    rows: Sequence[Row],
    metrics: Mapping[str, Any],
    judgments: Sequence[Mapping[str, Any]],
) -> Verdict:
    """Return the verdict on the model of digest `challenger` against that of digest `champion`, if there is one.

    rows: tables.EVALUATION; judgments: tables.JUDGMENTS.
    """
    ours = [row for row in select_model(rows, "challenger") if row["digest"] == challenger]
    theirs = [row for row in select_model(rows, "champion") if row["digest"] == champion]
    gate, aside = set_truth_aside(gate, ours, metrics)
    failures = find_limit_violations(gate, metrics) + find_missing_measures(gate, ours)
    notes = ["there is no champion yet: limits decide, and people's comparison with pasted products"]
    if champion is not None:
        losses, notes = find_losses(gate, ours, theirs)
        failures += losses
    if failures:
        return Verdict("fail", tuple(failures + aside), challenger, champion)
    outcome, reason = decide_by_ratings(gate, challenger, champion, judgments)
    notes += describe_own_judges(metrics.get("instruments", {}).get("frozen", {}))
    return Verdict(outcome, (reason, *notes, *aside), challenger, champion)


def set_truth_aside(
    gate: GateParams, challenger: Sequence[Row], metrics: Mapping[str, Any]
) -> tuple[GateParams, list[str]]:
    """Return the gate without what asks for truth, and a note of it, where no scene of any pin is known.

    A catalogue without truth has no judge of scenes, and no mask that is known to be right. A judge, or a prompt that
    names a scene, leaves the gate as it is.
    """
    if metrics.get("judge") or any(row.get("scene") is not None for row in challenger):
        return gate, []

    def needs_truth(name: str) -> bool:
        return "scene" in name.rpartition(".")[2] or name == "instruments.segmenter.iou"

    limits = {name: limit for name, limit in (gate.ceilings | gate.floors).items() if limit is not None}
    aside = sorted(name for name in {*limits, *gate.guarded} if needs_truth(name))
    note = f"no truth is known of any pin, so nothing was asked of {', '.join(aside)}"
    return _drop_measures(gate, aside.__contains__), [note] if aside else []


def find_limit_violations(gate: GateParams, metrics: Mapping[str, Any]) -> list[str]:
    """List the metrics that are missing or beyond their limits; what is not a number is beyond every limit."""
    limits = [(name, limit, "at most") for name, limit in gate.ceilings.items() if limit is not None]
    limits += [(name, limit, "at least") for name, limit in gate.floors.items() if limit is not None]
    reasons = []
    for name, limit, bound in limits:
        value, title = _look_up_metric(metrics, name), get_title("evaluate", name)
        if value is None:
            reasons.append(f"{title} was not measured: it must be {bound} {limit:g}")
        elif not (value <= limit if bound == "at most" else value >= limit):
            reasons.append(f"{title} is {value:.4g}: it must be {bound} {limit:g}")
    return reasons


def find_missing_measures(gate: GateParams, challenger: Sequence[Row]) -> list[str]:
    """List the guarded measures that are missing or not a number in the challenger's rows."""
    if not challenger:
        return ["the evaluation holds no image of this model: evaluate it again"]
    reasons = []
    for name in gate.guarded:
        values = [row[name] for row in challenger if row.get(name) is not None]
        if not values:
            reasons.append(f"{name} was not measured: it is guarded")
        elif count := sum(not math.isfinite(value) for value in values):
            reasons.append(f"{name} is not a number in {count} of {len(values)} images")
    return reasons


def find_losses(gate: GateParams, challenger: Sequence[Row], champion: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the guarded measures, over all and by slice, that got worse beyond chance; and notes: how many were
    compared, and which look worse but may be so by chance."""
    items = len({new["item_id"] for _, new in pair_rows(challenger, champion)})
    if items < gate.min_items:
        return [
            f"the champion has images of {items} of these items, {gate.min_items} are needed to compare: keep the "
            "products, prompts and seeds that it was evaluated on"
        ], []
    compared = [delta for delta in compute_deltas(challenger, champion, guarded=gate.guarded) if delta.guarded]
    compared += compute_slice_deltas(challenger, champion, gate.slices, min_items=gate.min_items, guarded=gate.guarded)
    reasons = [
        f"{name} was not measured on the champion's images: it is guarded"
        for name in gate.guarded
        if not any(delta.name == name and delta.difference is not None for delta in compared)
    ]
    tested = [delta for delta in compared if delta.loss_by_chance is not None]
    significant = find_significant([float(delta.loss_by_chance or 0) for delta in tested], gate.false_alarms)
    losses = [delta for delta, is_loss in zip(tested, significant, strict=True) if is_loss]
    reasons += [f"worse than the champion: {_format_delta(delta)}" for delta in losses]
    notes = [f"no loss against the champion beyond chance in {len(tested)} comparisons"]
    notes += [
        f"looks worse, which may be chance among so many: {_format_delta(delta)}"
        for delta in tested
        if delta.change == "worse" and delta not in losses
    ]
    return reasons, notes


def decide_by_ratings(
    gate: GateParams, challenger: str, champion: str | None, judgments: Sequence[Mapping[str, Any]]
) -> tuple[Outcome, str]:
    """Return the outcome by people's preferences between these two models, and the reason."""
    usable = {row["judgment_id"]: row for row in select_counted(judgments) if _is_share(row["value"])}
    wins = compute_win_rate(usable.values(), challenger, champion, raters_per_pair=gate.min_raters)
    against = "the champion" if champion else "pasted products"
    count, raters = (wins.judgments, wins.raters) if wins else (0, 0)
    if wins is None or wins.rate is None or count < gate.min_judgments:
        text = f"{count} of {gate.min_judgments} ratings against {against} by {raters} of {gate.min_raters} raters"
        others = sum(challenger not in (row["first_model"], row["second_model"]) for row in usable.values())
        text += f"; {wins.waiting} wait for another rater of the pair" if wins and wins.waiting else ""
        return "pending", text + (f"; {others} more are about other versions and do not count" if others else "")
    text = f"people prefer it to {against} in {wins.rate} of pairs ({count} ratings by {raters} raters)"
    if wins.rate.low > gate.min_win_rate:
        return "pass", text
    return "fail", f"{text}: the interval must lie above {gate.min_win_rate:g}"


def _format_delta(delta: Delta) -> str:
    assert delta.difference is not None
    assert delta.champion is not None
    change = delta.difference
    return (
        f"{delta.name}, {delta.champion:.3g} before, {delta.challenger:.3g} now "
        f"({change.mean:+.3g} [{change.low:+.3g}, {change.high:+.3g}])"
    )


def _look_up_metric(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return a number by its dotted name; None: not there."""
    value: Any = metrics
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
