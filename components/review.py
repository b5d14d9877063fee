"""Stage `review`: the page on which a lead decides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from canvas.ranges import Count
from components.artifacts import CanvasModel, Champion, Evaluation, Ratings, Review, Verdict
from evaluation.gates import GateParams
from evaluation.generator.comparison import LOWER_IS_BETTER, MEASURES
from lifecycle.declare.registry import Decision, Registry
from lifecycle.declare.stage import Input, Output, stage

if TYPE_CHECKING:
    from evaluation.pages.review import HumanRatings, ModelOrigin

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewParams:
    pictures: Count  # items shown side by side
    figures: tuple[str, ...]  # measures of the challenger that come first

    def __post_init__(self) -> None:
        if unknown := set(self.figures) - set(MEASURES):
            raise ValueError(f"review.figures has {sorted(unknown)}: it may have {', '.join(MEASURES)}")


@stage()
def review(
    review: ReviewParams,
    gate: GateParams,
    evaluation: Input[Evaluation],
    champion: Input[Champion],
    ratings: Input[Ratings],
    verdict: Input[Verdict],
    report: Output[Review],
    registry: Registry,
) -> None:
    """Show verdict, pictures side by side, measures, slices, people's ratings, lineage and what changed on one page."""
    from canvas.pins.tables import read
    from evaluation.generator import comparison
    from evaluation.pages import review as pages

    decision = Decision(**json.loads(verdict.path.read_text(encoding="utf-8")))
    known = json.loads((champion.path / "champion.json").read_text(encoding="utf-8"))
    rows = read(evaluation.path).to_pylist()
    challenger, before, paste = (comparison.select_model(rows, model) for model in ("challenger", "champion", "paste"))
    before = [row for row in before if row["digest"] == decision.champion]  # as the gates compare
    watched: dict[str, Any] = {"lower_is_better": LOWER_IS_BETTER, "guarded": gate.guarded}
    measures = comparison.compute_deltas(challenger, before, **watched)
    own = {delta.name: delta.challenger for delta in measures}
    shown = pages.ReviewPage(
        outcome=decision.outcome,
        reasons=decision.reasons,
        figures={name: own[name] for name in review.figures if name in own},
        sides=comparison.select_sides(challenger, before or paste, review.pictures),
        left="champion" if before else "the product pasted on another picture",
        deltas=measures,
        slices=comparison.compute_slice_deltas(challenger, before, gate.slices, min_items=gate.min_items, **watched),
        human=_human(rows, read(ratings.path).to_pylist(), decision),
        champion_version=known["version"],
        champion=_champion(known),
        challenger=_challenger(registry, decision.challenger),
    )
    report.write(pages.render_review_page(shown))


def _champion(known: Mapping[str, Any]) -> ModelOrigin | None:
    from evaluation.pages.review import ModelOrigin

    if known["version"] is None:
        return None
    return ModelOrigin(**{name: known[name] for name in ("digest", "artifacts", "params", "runs")})


def _challenger(registry: Registry, digest: str) -> ModelOrigin:
    from evaluation.pages.review import ModelOrigin

    origin = registry.origin(CanvasModel, digest)
    return ModelOrigin(
        digest=digest, artifacts=origin.artifacts, params=origin.params, runs=origin.runs, tree=origin.tree
    )


def _human(rows: Sequence[Row], judgments: Sequence[Row], decision: Decision) -> HumanRatings:
    from evaluation.pages.review import HumanRatings
    from evaluation.ratings.agreement import compute_consistency, compute_win_rate, fit_strengths
    from evaluation.ratings.reward_agreement import compute_reward_agreement

    found = compute_win_rate(judgments, decision.challenger, decision.champion)
    names = {decision.challenger: "challenger", decision.champion: "champion"}
    return HumanRatings(
        win_rate=found.rate if found else None,
        against="the champion" if decision.champion else "products pasted on another picture",
        judgments=found.judgments if found else 0,
        raters=found.raters if found else 0,
        agreement=compute_reward_agreement(rows, judgments, decision.challenger),
        consistency=compute_consistency(judgments),
        set_aside=Counter(row["set_aside"] for row in judgments if row["set_aside"]),
        strengths={names.get(model, model[:10]): strength for model, strength in fit_strengths(judgments).items()},
    )
