"""Stage `evaluate`: candidates in, every score of every one out, and metrics by model and slice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from canvas.clip.spec import TextSpec
from canvas.pins.frames import FrameSpec
from canvas.segmenter.spec import EdgeSpec
from components import artifacts
from evaluation.generator.spec import EvaluationSpec
from evaluation.tables.spec import DriftLimits
from lifecycle.declare.skipping import is_made
from lifecycle.declare.stage import Input, Output, Report, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateParams(EvaluationSpec):
    """How candidates are scored and compared, and their drift judged."""

    drift: DriftLimits  # of the challenger's images from the champion's training data


@stage(machine="gpu")
def evaluate(
    evaluate: EvaluateParams,
    edges: EdgeSpec,
    frames: FrameSpec,
    text: TextSpec,
    candidates: Input[artifacts.Candidates],
    champion: Input[artifacts.Champion],
    pins: Input[artifacts.Pins],
    kept: Input[artifacts.Kept],
    truth: Input[artifacts.Truth],
    judges: Input[artifacts.SceneJudges],
    masks: Input[artifacts.Masks],
    captions: Input[artifacts.Captions],
    clip: Input[artifacts.Clip],
    segmenter: Input[artifacts.Segmenter],
    reward: Input[artifacts.RewardModel],
    evaluation: Output[artifacts.Evaluation],
    statistics: Output[artifacts.TrainingStatistics],
    metrics: Output[artifacts.EvaluationMetrics],
    report: Output[Report],
    drift: Output[Report],
) -> None:
    """Score every candidate; check what scores them; compare models by measure, slice and whole set; measure drift."""
    from canvas.pins import fallbacks, tables
    from evaluation.generator.candidates import Scorer
    from evaluation.generator.comparison import compare_models, group_by_model
    from evaluation.generator.metrics import compute_metrics_by_model, compute_slice_metrics, draw_worst_sheet
    from evaluation.generator.pins import load_evaluation_pins
    from evaluation.pages.evaluation import EvaluationPage, render_evaluation_page
    from evaluation.tables.drift import measure_candidate_drift, write_training_statistics

    params, clock, notes = evaluate, time.perf_counter(), fallbacks.Notes()
    evaluation_pins = load_evaluation_pins(params, notes, pins.path, kept.path, masks.path, captions.path)
    networks = {"judges": judges.path, "clip": clip.path, "segmenter": segmenter.path}
    rewards = reward.path if is_made(reward.path) else None
    scorer = Scorer.load(params, frames.side, edges, text, evaluation_pins, reward=rewards, **networks)
    rows, features = scorer.score_candidates(tables.read(candidates.path).to_pylist(), pins.path, evaluation_pins)
    instruments = scorer.measure_instruments(evaluation_pins.real, truth.path)
    scored = time.perf_counter()
    tables.write_rows(evaluation.path, rows, tables.EVALUATION)
    training = write_training_statistics(statistics.path, pins.path, kept.path)
    models, judge = group_by_model(rows), dict(scorer.backgrounds.judges.accuracy)
    challenger, incumbent = models["challenger"], models.get("champion", [])
    ranking = "reward_overall" if rewards else "agreement"
    by_model = compute_metrics_by_model(models, features, params.features)
    by_slice = compute_slice_metrics(challenger, params.slices)
    drift_result = measure_candidate_drift(challenger, champion.path, training, params.drift)
    details: dict[str, Any] = {"slices": by_slice, "drift": drift_result.to_metrics(), "instruments": instruments}
    seconds = {"score": scored - clock, "compare": time.perf_counter() - scored}
    metrics.write({**by_model, **details, "judge": judge, "seconds": seconds, **notes.to_metrics()})
    drift.write(drift_result.page)
    deltas = compare_models(challenger, incumbent, params.slices, params.min_items)
    worst = draw_worst_sheet(challenger, ranking, params.worst)
    report.write(render_evaluation_page(EvaluationPage(by_model, deltas, worst, ranking, **details)))
