"""Stage `register`: every model as a version in the registry, the newest as `candidate`."""

from __future__ import annotations

import json
from dataclasses import asdict

from lifecycle import catalog
from lifecycle.catalog import CanvasModel
from lifecycle.declare.stage import Decision, Input, Output, Registry, Served, stage


@stage(machine="cpu")
def register(
    segmenter: Input[catalog.Segmenter],
    captioner: Input[catalog.Captioner],
    clips: Input[catalog.Clip],
    uve: Input[catalog.Uve],
    vae: Input[catalog.Vae],
    base: Input[catalog.BaseModel],
    inpaint: Input[catalog.InpaintModel],
    backdrop: Input[catalog.BackdropLora],
    engaged: Input[catalog.EngagedLora],
    adapter: Input[catalog.IpAdapter],
    decoder: Input[catalog.Decoder],
    reward: Input[catalog.RewardModel],
    canvas: Input[CanvasModel],
    evaluation: Input[catalog.Evaluation],
    statistics: Input[catalog.TrainingStatistics],
    figures: Input[catalog.EvaluationMetrics],
    verdict: Input[catalog.Verdict],
    review: Input[catalog.Review],
    registered: Output[catalog.Registered],
    registry: Registry,
) -> None:
    """Make every model a version in the registry, with lineage, evaluation and verdict; the composite is candidate."""
    from canvas.inference.served import INPUTS, OPTIONS, OUTPUTS

    versions = registry.register(
        CanvasModel,
        {
            catalog.Segmenter: segmenter.path,
            catalog.Captioner: captioner.path,
            catalog.Clip: clips.path,
            catalog.Uve: uve.path,
            catalog.Vae: vae.path,
            catalog.BaseModel: base.path,
            catalog.InpaintModel: inpaint.path,
            catalog.BackdropLora: backdrop.path,
            catalog.EngagedLora: engaged.path,
            catalog.IpAdapter: adapter.path,
            catalog.Decoder: decoder.path,
            catalog.RewardModel: reward.path,
            CanvasModel: canvas.path,
        },
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
    found = {name: asdict(version) for name, version in sorted(versions.items())}
    registered.path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
