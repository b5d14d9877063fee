"""Stage `promote`: the candidate is champion if people's ratings, too, let it pass."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from components.artifacts import CanvasModel, Champion, Evaluation, EvaluationMetrics, Promoted, Ratings, Registered
from evaluation.gates import GateParams
from lifecycle.declare.registry import Decision, ModelVersion, Registry
from lifecycle.declare.stage import Input, Output, stage
from lifecycle.workspace.digest import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteParams:
    why: str  # for the registry's history, before the verdict's own reasons


@stage(pipeline="promote")
def promote(
    promote: PromoteParams,
    gate: GateParams,
    canvas: Input[CanvasModel],
    evaluation: Input[Evaluation],
    figures: Input[EvaluationMetrics],
    champion: Input[Champion],
    ratings: Input[Ratings],
    registered: Input[Registered],
    promoted: Output[Promoted],
    registry: Registry,
) -> None:
    """Judge the candidate again with the ratings there are now; if it passes, make it and its parts champion."""
    from evaluation.gates import run_gate

    candidate = ModelVersion(**json.loads(registered.path.read_text(encoding="utf-8"))[CanvasModel.registered])
    paths = {"evaluation": evaluation.path, "metrics": figures.path, "champion": champion.path, "ratings": ratings.path}
    verdict = run_gate(gate, candidate.digest, model=canvas.path, **paths)
    decision = Decision(**asdict(verdict))
    evidence = {Evaluation.path: digest(evaluation.path)}
    passes = decision.outcome == "pass"
    move = registry.promote(candidate, decision, promote.why, evidence=evidence) if passes else None
    result = {"outcome": decision.outcome, "reasons": decision.reasons, "move": asdict(move) if move else None}
    promoted.write(result)
