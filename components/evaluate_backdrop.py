"""Stage `evaluate_backdrop`: the assembled generator in, scores of its backgrounds and a grid of them out."""

from __future__ import annotations

import time

from canvas.denoiser.spec import Backgrounds, PassSpec
from canvas.pins.frames import FrameSpec
from components.artifacts import BaseModel, CanvasModel, Captions, Kept, Masks, Pins, SceneJudges, Truth
from evaluation.generator.spec import BackgroundEvaluationSpec, ProductNameSpec
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage


@stage(machine="gpu")
def evaluate_backdrop(
    evaluate_backdrop: BackgroundEvaluationSpec,
    backgrounds: Backgrounds,
    product_name: ProductNameSpec,
    passes: PassSpec,
    frames: FrameSpec,
    canvas: Input[CanvasModel],
    base: Input[BaseModel],
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    judges: Input[SceneJudges],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Score backgrounds of held-out products: the prompted scene, the product whole, the image real, no seams.

    The sheet shows held-out products before prompted scenes; the original on the left.
    """
    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.fallbacks import Notes
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins
    from canvas.pins.tables import HELD_OUT_SPLITS
    from evaluation.generator.stage_scores import (
        draw_background_grid,
        group_scene_pins,
        measure_scene_colours,
        measure_seed_diversity,
        score_stages,
        select_one_a_product,
    )
    from evaluation.judges.judges import Judges

    params, prompts, clock, notes = evaluate_backdrop, backgrounds.prompts, time.perf_counter(), Notes()
    tables = pins.path, kept.path, masks.path, captions.path
    names = product_name.source
    products = load_product_pins(*tables, splits=params.splits, count=params.products, names=names, notes=notes)
    real = load_product_pins(*tables, splits=HELD_OUT_SPLITS, count=params.real_pins, notes=notes)
    scene_judges = Judges.load(judges.path)
    pipeline = CanvasPipeline.from_pretrained(canvas.path, trust_remote_code=True).to(default_device())
    sampling = pipeline.recommended_sampling.build_spec(passes)
    by_stage, by_scene, images = score_stages(
        pipeline,
        base.path,
        products,
        prompts,
        real,
        spec=params,
        sampling=sampling,
        frame_side=frames.side,
        judges=scene_judges,
    )
    scored = time.perf_counter()
    scenes = group_scene_pins(real, truth.path, prompts)
    colours = measure_scene_colours(products, prompts, images, scenes)
    scenes = [select_one_a_product(scene, params.same_seed.products) for scene in scenes]
    same_seed = measure_seed_diversity(pipeline, products, prompts, images, scenes, params, sampling)
    seconds = {"stages": scored - clock, "same_seed": time.perf_counter() - scored}
    parts = {"by_scene": by_scene, "by_stage": by_stage, "colours": colours, "same_seed": same_seed, "seconds": seconds}
    metrics.write({**scene_judges.accuracy, **list(by_stage.values())[-1], **parts, **notes.to_metrics()})
    sheet.write(encode_png(draw_background_grid(products[: params.grid_products], prompts, images)))
