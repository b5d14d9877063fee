"""Stage `gate`: measurements and human ratings in, verdict out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.artifacts import CanvasModel, Champion, Evaluation, EvaluationMetrics, Ratings, Verdict
from evaluation.gates import GateParams
from lifecycle.declare.registry import Decision
from lifecycle.declare.stage import Input, Metrics, Output, stage
from lifecycle.workspace.digest import digest


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
    from evaluation.ratings.reward_agreement import compute_reward_agreement

    challenger = digest(canvas.path)
    against, found = run_gate(gate, challenger, evaluation.path, figures.path, champion.path, ratings.path)
    decision = Decision(outcome=found.outcome, reasons=found.reasons, challenger=challenger, champion=against)
    verdict.write(asdict(decision))
    told: dict[str, Any] = {name: int(found.outcome == outcome) for name, outcome in OUTCOMES.items()}
    scored = read(evaluation.path, ["candidate_id", "item_id", "reward_overall"]).to_pylist()
    raters = compute_reward_agreement(scored, read(ratings.path).to_pylist(), challenger).figures
    told |= {"reasons": len(found.reasons)} | ({"raters": raters} if raters else {})
    metrics.write(told)


OUTCOMES = {"passed": "pass", "failed": "fail", "pending": "pending"}
