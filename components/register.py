"""Stage `register`: every model as a version in the registry, the newest as `candidate`."""

from __future__ import annotations

import json
from dataclasses import asdict

from components import artifacts
from lifecycle.declare.registry import Decision, Registry, Served
from lifecycle.declare.stage import CollectedModels, Input, Model, Output, stage


@stage(machine="cpu")
def register(
    models: CollectedModels,
    evaluation: Input[artifacts.Evaluation],
    statistics: Input[artifacts.TrainingStatistics],
    figures: Input[artifacts.EvaluationMetrics],
    verdict: Input[artifacts.Verdict],
    review: Input[artifacts.Review],
    registered: Output[artifacts.Registered],
    registry: Registry,
) -> None:
    """Make every model a version in the registry, with lineage, evaluation and verdict; the composite is candidate."""
    from canvas.inference.served import INPUTS, OPTIONS, OUTPUTS

    versions = registry.register(
        artifacts.CanvasModel,
        {exhibit.kind: exhibit.path for exhibit in models.exhibits if issubclass(exhibit.kind, Model)},
        served=Served(loader="canvas.inference.served", inputs=INPUTS, outputs=OUTPUTS, options=OPTIONS),
        evidence={
            "evaluation": evaluation.path,
            "training_statistics": statistics.path,
            "review.html": review.path,
            "verdict.json": verdict.path,
        },
        metrics=figures.path,
        decision=Decision(**json.loads(verdict.path.read_text(encoding="utf-8"))),
    )
    versions_json = {name: asdict(version) for name, version in sorted(versions.items())}
    registered.write(versions_json)
