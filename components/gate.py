"""Stage `gate`: measurements and human ratings in, verdict out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.artifacts import CanvasModel, Champion, Evaluation, EvaluationMetrics, Ratings, Verdict
from evaluation.gates import GateParams
from lifecycle.declare.stage import Input, Metrics, Output, stage
from lifecycle.workspace.digest import digest

OUTCOMES = {"passed": "pass", "failed": "fail", "pending": "pending"}


@stage()
def gate(
    gate: GateParams,
    canvas: Input[CanvasModel],
    evaluation: Input[Evaluation],
    figures: Input[EvaluationMetrics],
    champion: Input[Champion],
    ratings: Input[Ratings],
    verdict: Output[Verdict],
    metrics: Output[Metrics],
) -> None:
    """Judge the challenger by limits, by what the champion reaches, and by what people say."""
    from canvas.pins.tables import read
    from evaluation.gates import run_gate
    from evaluation.ratings.summary import compute_reward_agreement

    scores = read(evaluation.path, ["candidate_id", "item_id", "reward_overall"]).to_pylist()
    paths = {"evaluation": evaluation.path, "metrics": figures.path, "champion": champion.path, "ratings": ratings.path}
    decision = run_gate(gate, digest(canvas.path), model=canvas.path, **paths)
    verdict.write(asdict(decision))
    agreement = compute_reward_agreement(scores, read(ratings.path).to_pylist(), decision.challenger).metrics
    values: dict[str, Any] = {name: int(decision.outcome == outcome) for name, outcome in OUTCOMES.items()}
    values |= {"reasons": len(decision.reasons)} | ({"raters": agreement} if agreement else {})
    metrics.write(values)
