"""Stage `evaluate_scenes`: the assembled generator in, its modes, sizes, formats and numbers of products out."""

from __future__ import annotations

import time

from canvas.denoiser.spec import Backgrounds, PassSpec
from canvas.pins.frames import FrameSpec
from components.artifacts import CanvasModel, Captions, Kept, Masks, Pins, SceneJudges, Uve
from evaluation.generator.spec import ProductNameSpec
from evaluation.scenes.spec import SceneEvaluationSpec
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage


@stage(machine="gpu")
def evaluate_scenes(
    evaluate_scenes: SceneEvaluationSpec,
    backgrounds: Backgrounds,
    product_name: ProductNameSpec,
    passes: PassSpec,
    frames: FrameSpec,
    canvas: Input[CanvasModel],
    uve: Input[Uve],
    pins: Input[Pins],
    kept: Input[Kept],
    judges: Input[SceneJudges],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    modes: Output[Sheet],
    sizes: Output[Sheet],
    formats: Output[Sheet],
    products: Output[Sheet],
) -> None:
    """Generate held-out products in every mode, size, format and number of products; score each slice and show it.

    In a row of a sheet product, prompt and seed are the same. The first image is the product as it was given."""
    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.fallbacks import Notes
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins
    from canvas.pins.tables import HELD_OUT_SPLITS
    from evaluation.judges.features import choose_view_side
    from evaluation.judges.judges import Judges
    from evaluation.scenes.families import build_families
    from evaluation.scenes.generation import generate_families
    from evaluation.scenes.products import ProductCounter
    from evaluation.scenes.scores import compute_totals, measure_slices
    from evaluation.scenes.sheets import draw_sheets
    from evaluation.scenes.subjects import Subjects

    params, clock, notes = evaluate_scenes, time.perf_counter(), Notes()
    tables, names = (pins.path, kept.path, masks.path, captions.path), product_name.source
    chosen = load_product_pins(*tables, splits=params.splits, count=params.products, names=names, notes=notes)
    real = load_product_pins(*tables, splits=HELD_OUT_SPLITS, count=params.real_pins, notes=notes)
    pipeline = CanvasPipeline.from_pretrained(canvas.path, trust_remote_code=True).to(default_device())
    subjects = Subjects.of_pipeline(pipeline, chosen, backgrounds.prompts)
    families = build_families(subjects, params, frames.side, notes)
    images = generate_families(pipeline, families, pipeline.recommended_sampling.build_spec(passes))
    generated = time.perf_counter()
    counter = ProductCounter.load(uve.path, subjects, real)
    scene_judges, side = Judges.load(judges.path), choose_view_side(frames.side)
    slices = measure_slices(images, scene_judges, side, counter, notes)
    seconds = {"generate": generated - clock, "score": time.perf_counter() - generated}
    metrics.write({**slices, **compute_totals(slices), "seconds": seconds, **notes.to_metrics()})
    sheets = draw_sheets(images, params.sheet_rows)
    for name, output in {"mode": modes, "size": sizes, "format": formats, "products": products}.items():
        output.write(encode_png(sheets[name]))
