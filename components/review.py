"""Stage `review`: the page on which a lead decides."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from canvas.align.spec import is_for
from canvas.ranges import Count
from components import artifacts
from evaluation.gates import GateParams
from evaluation.metrics import CANDIDATE_MEASURES
from lifecycle.declare.registry import Decision, Registry
from lifecycle.declare.stage import Input, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewParams:
    pictures: Count  # items shown side by side
    figures: tuple[str, ...]  # measures of the challenger that come first

    def __post_init__(self) -> None:
        if unknown := set(self.figures) - set(CANDIDATE_MEASURES):
            raise ValueError(f"review.figures has {sorted(unknown)}: it may have {', '.join(CANDIDATE_MEASURES)}")


@stage()
def review(
    review: ReviewParams,
    gate: GateParams,
    evaluation: Input[artifacts.Evaluation],
    champion: Input[artifacts.Champion],
    ratings: Input[artifacts.Ratings],
    verdict: Input[artifacts.Verdict],
    aligned: Input[artifacts.AlignedLora],
    alignment: Input[artifacts.AlignmentSheet],
    report: Output[artifacts.Review],
    registry: Registry,
) -> None:
    """Show verdict, images side by side, measures, slices, people's ratings, lineage and what changed on one page."""
    from canvas.pins.tables import read
    from evaluation.generator.comparison import compute_deltas, compute_slice_deltas, select_model, select_sides
    from evaluation.pages.review import ModelOrigin, ReviewPage, render_review_page
    from evaluation.ratings.summary import summarize_ratings

    decision = Decision(**json.loads(verdict.path.read_text(encoding="utf-8")))
    facts = json.loads((champion.path / "champion.json").read_text(encoding="utf-8"))
    rows = read(evaluation.path).to_pylist()
    challenger, before, paste = (select_model(rows, model) for model in ("challenger", "champion", "paste"))
    before = [row for row in before if row["digest"] == decision.champion]  # as the gates compare
    deltas = compute_deltas(challenger, before, guarded=gate.guarded)
    judgments, judged = read(ratings.path).to_pylist(), (decision.challenger, decision.champion)
    means = {delta.name: delta.challenger for delta in deltas}
    page = ReviewPage(
        outcome=decision.outcome,
        reasons=decision.reasons,
        figures={name: means[name] for name in review.figures if name in means},
        sides=select_sides(challenger, before or paste, review.pictures),
        left="champion" if before else "the product pasted on another image",
        deltas=deltas,
        slices=compute_slice_deltas(challenger, before, gate.slices, min_items=gate.min_items, guarded=gate.guarded),
        human=summarize_ratings(rows, judgments, *judged, raters_per_pair=gate.min_raters),
        alignment=alignment.path.read_bytes() if is_for(aligned.path, "backdrop") else None,
        champion_version=facts["version"],
        champion=ModelOrigin.from_facts(facts),
        challenger=ModelOrigin(
            digest=decision.challenger, **asdict(registry.trace_origin(artifacts.CanvasModel, decision.challenger))
        ),
    )
    report.write(render_review_page(page))
