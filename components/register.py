"""Stage `register`: every model as a version in the registry, the newest as `candidate`."""

from __future__ import annotations

import json
from dataclasses import asdict

from components import artifacts
from lifecycle.declare.registry import Decision, Registry, Served
from lifecycle.declare.stage import Input, Output, stage


@stage(machine="cpu")
def register(
    segmenter: Input[artifacts.Segmenter],
    captioner: Input[artifacts.Captioner],
    clips: Input[artifacts.Clip],
    uve: Input[artifacts.Uve],
    vae: Input[artifacts.Vae],
    base: Input[artifacts.BaseModel],
    inpaint: Input[artifacts.InpaintModel],
    backdrop: Input[artifacts.BackdropLora],
    engaged: Input[artifacts.EngagedLora],
    adapter: Input[artifacts.IpAdapter],
    decoder: Input[artifacts.Decoder],
    reward: Input[artifacts.RewardModel],
    canvas: Input[artifacts.CanvasModel],
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
        {
            artifacts.Segmenter: segmenter.path,
            artifacts.Captioner: captioner.path,
            artifacts.Clip: clips.path,
            artifacts.Uve: uve.path,
            artifacts.Vae: vae.path,
            artifacts.BaseModel: base.path,
            artifacts.InpaintModel: inpaint.path,
            artifacts.BackdropLora: backdrop.path,
            artifacts.EngagedLora: engaged.path,
            artifacts.IpAdapter: adapter.path,
            artifacts.Decoder: decoder.path,
            artifacts.RewardModel: reward.path,
            artifacts.CanvasModel: canvas.path,
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
    versions_json = {name: asdict(version) for name, version in sorted(versions.items())}
    registered.write(versions_json)
