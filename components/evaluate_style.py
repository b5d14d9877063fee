"""Stage `evaluate_style`: held-out products and style images in, how far the generator follows them out."""

from __future__ import annotations

import time
from typing import Any

from canvas.pins.frames import FrameSpec
from components.artifacts import CanvasModel, Captions, Clip, Kept, Masks, Pins, SceneJudges, Truth
from evaluation.generator.spec import ProductNameSpec, StyleEvaluationSpec
from evaluation.generator.style_plan import estimate_trial_memory
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Metrics, Output, Plot, Sheet, stage


class StyleCurve(Plot):
    """Agreement with style and text, scenes that follow, leakage and diversity, by strength."""

    x = "strength"
    y = ("scene_follows", "style_agreement", "leakage", "diversity", "prompt_scene", "text_agreement")


@stage(machine="gpu", memory=estimate_trial_memory)
def evaluate_style(
    evaluate_style: StyleEvaluationSpec,
    product_name: ProductNameSpec,
    frames: FrameSpec,
    canvas: Input[CanvasModel],
    clip: Input[Clip],
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    judges: Input[SceneJudges],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    curve: Output[StyleCurve],
    sheet: Output[Sheet],
) -> None:
    """Generate held-out products after held-out style images, with a prompt and without, at every strength; score.

    The sheet shows held-out products by style; a row a style, its image first.
    """
    from canvas.denoiser.adapters import holds_image_prompt
    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.fallbacks import Notes
    from canvas.pins.images import encode_png
    from canvas.pins.tables import read_kept_splits
    from evaluation.generator import style_scores
    from evaluation.generator.style_trials import draw_style_grid, generate_trials, load_style_plan
    from evaluation.judges.features import choose_view_side

    if not holds_image_prompt(canvas.path):
        reason = "the generator has no image-prompt adapter, so it knows no styles"
        write_skipped(reason, metrics, curve, sheet, plot=StyleCurve)
        return
    params, first, clock, notes = evaluate_style, evaluate_style.strengths[0], time.perf_counter(), Notes()
    tables = {"pins": pins.path, "kept": kept.path, "truth": truth.path, "masks": masks.path, "captions": captions.path}
    side = choose_view_side(frames.side)
    plan = load_style_plan(params, product_name, notes, **tables)
    if not plan.trials:
        reason = "there is no style image of another product than those that it would be tried on"
        write_skipped(reason, metrics, curve, sheet, plot=StyleCurve)
        return
    scorer = style_scores.StyleScorer.load(params, side, notes, judges=judges.path, clip=clip.path, **tables)
    values: dict[str, Any] = {**scorer.compute_judge_accuracies()}
    judged = time.perf_counter()
    pipeline = CanvasPipeline.from_pretrained(canvas.path, trust_remote_code=True).to(default_device())
    images = generate_trials(pipeline, plan, params.sampling, layers=params.layers, centre_pull=params.typical)
    generated = time.perf_counter()
    scores, features = scorer.score_trials(pipeline, plan, images, read_kept_splits(pins.path, kept.path))
    by_strength = style_scores.compute_metrics_by_strength(scores, features)
    values |= style_scores.compute_style_summary(by_strength, scores, first)
    done = time.perf_counter()
    values["seconds"] = {"judges": judged - clock, "paint": generated - judged, "score": done - generated}
    metrics.write(values | notes.to_metrics())
    curve.write(style_scores.format_curve_csv(by_strength))
    grid = draw_style_grid(plan, images, count=params.grid_products, strength=first, seed=params.seed)
    sheet.write(encode_png(grid))
