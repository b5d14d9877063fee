"""Stage `evaluate_backdrop`: the assembled generator in, scores of its backgrounds and a grid of them out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canvas.denoiser.spec import Backgrounds, PassSpec, SamplingSpec
from canvas.pins.frames import FrameSpec
from canvas.pins.tables import SPLITS
from canvas.ranges import Count
from components.artifacts import BaseModel, CanvasModel, Captions, Kept, Masks, Pins, SceneJudges
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage

if TYPE_CHECKING:
    from PIL import Image

    from canvas.inference.batch import EncodedRequest
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.product import Pixels
    from canvas.pins.products import ProductPin
    from evaluation.judges.judges import Judges

STAGE_LORAS: Mapping[str, tuple[str, ...] | None] = {
    "base": None,
    "inpaint": (),
    "backdrop": ("backdrop",),
    "engaged": ("backdrop", "engaged"),
}
"""The generator as each stage left it: the LoRAs that are on; None: text-to-image, the product put on it. The last is
the whole: nothing more is on without a style."""

HELD_OUT = tuple(split for split in SPLITS if split != "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateBackdropParams:
    splits: tuple[str, ...]  # whose products are shown
    products: Count  # pins
    seed: int  # of the first image; the others count on
    real_pins: Count  # held-out ones that painted pictures are compared with
    seam_reach: Count  # pixels of the model's frame on each side of the product's edge
    grid_products: Count  # rows of the grid

    def __post_init__(self) -> None:
        if not set(self.splits) <= set(SPLITS):
            raise ValueError(f"evaluate_backdrop needs splits among {', '.join(SPLITS)}, not {self}")


@stage(machine="gpu")
def evaluate_backdrop(
    evaluate_backdrop: EvaluateBackdropParams,
    backgrounds: Backgrounds,
    passes: PassSpec,
    frames: FrameSpec,
    canvas: Input[CanvasModel],
    base: Input[BaseModel],
    pins: Input[Pins],
    kept: Input[Kept],
    judges: Input[SceneJudges],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Score backgrounds of held-out products: the scene asked for, the product whole, the picture real, no seams.

    The sheet shows held-out products before prompted scenes; the original on the left.
    """
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins
    from evaluation.judges.judges import Judges

    params, prompts, clock = evaluate_backdrop, backgrounds.prompts, time.perf_counter()
    by = Judges.load(judges.path)
    sources = pins.path, kept.path, masks.path, captions.path
    chosen = load_product_pins(*sources, splits=params.splits, count=params.products)
    real = load_product_pins(*sources, splits=HELD_OUT, count=params.real_pins)
    shown = _product_ids(pins.path, chosen)
    by_stage, by_scene, pictures = _stages(
        params, prompts, passes, frames, canvas.path, base.path, chosen, shown, real, by
    )
    figures = dict(by.accuracy) | list(by_stage.values())[-1] | {"by_scene": by_scene, "by_stage": by_stage}
    figures["seconds"] = {"stages": time.perf_counter() - clock}
    metrics.write(figures)
    sheet.write(encode_png(_grid(params.grid_products, prompts, chosen, pictures)))


def _stages(
    params: EvaluateBackdropParams,
    backgrounds: Sequence[str],
    passes: PassSpec,
    frames: FrameSpec,
    canvas: Path,
    base: Path,
    chosen: Sequence[ProductPin],
    product_ids: Sequence[str],
    real: Sequence[ProductPin],
    judges: Judges,
) -> tuple[dict[str, dict[str, Any]], dict[str, float], list[Pixels]]:
    """Scores of the generator as each stage left it; of the last, which is the whole, accuracy by scene and the
    pictures, a product after the other, prompts in their order."""
    import numpy as np
    from PIL import Image

    from canvas.device import default_device
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.scene_views import crop_center_square
    from canvas.segmenter.model import Segmenter
    from canvas.segmenter.spec import EdgeSpec
    from evaluation.generator.backgrounds import compute_background_metrics, compute_scene_accuracies
    from evaluation.generator.image_scores import measure_seam_gradients, score_images
    from evaluation.judges.features import choose_view_side, extract_trunk_features
    from evaluation.measures.distances import half_sample_error, kernel_distance

    pipeline = CanvasPipeline.from_pretrained(canvas).to(default_device())
    sampling = pipeline.recommended_sampling.build_spec(passes)
    network = pipeline.segmenter
    segmenter = Segmenter(network, pipeline.segmenter_processor, network.config.background_labels).eval()
    edges = EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"])
    requests = _requests(params.seed, backgrounds, pipeline, chosen)
    products = [one.request.product for one in requests]
    of_picture = [product_id for product_id in product_ids for _ in backgrounds]
    prompts = [prompt for _ in chosen for prompt in backgrounds]
    originals = measure_seam_gradients(
        [product.pixels for product in products], products, frames.side, params.seam_reach
    )
    before, side = [seam for seam in originals if seam is not None], choose_view_side(frames.side)
    known = extract_trunk_features(np.stack([crop_center_square(pin.image, side) for pin in real]))
    by_stage: dict[str, dict[str, Any]] = {}
    for name in STAGE_LORAS:
        pictures = _pictures(name, sampling, pipeline, base, requests)
        views = np.stack([crop_center_square(Image.fromarray(picture), side) for picture in pictures])
        features = extract_trunk_features(views)
        scores = score_images(
            pictures,
            views,
            products,
            of_picture,
            prompts,
            judges=judges,
            segmenter=segmenter,
            edges=edges,
            seam_side=frames.side,
            reach=params.seam_reach,
            batch_size=passes.batch_size,
        )
        seams = [score.seam for score in scores if score.seam is not None]
        by_stage[name] = compute_background_metrics(scores) | {
            "kid": kernel_distance(known, features),
            "kid_error": half_sample_error(kernel_distance, known, features),
        }
        by_stage[name]["seam_gradient_ratio"] = float(np.mean(seams) / np.mean(before))
    return by_stage, compute_scene_accuracies(scores), pictures


def _product_ids(pins: Path, chosen: Sequence[ProductPin]) -> list[str]:
    """The product of each of those pins; the pin itself where its product is unknown."""
    from canvas.pins import tables

    known = {row["pin_id"]: row["product_id"] for row in tables.read(pins, ["pin_id", "product_id"]).to_pylist()}
    return [known[pin.pin_id] or pin.pin_id for pin in chosen]


def _requests(
    seed: int, prompts: Sequence[str], pipeline: CanvasPipeline, chosen: Sequence[ProductPin]
) -> list[EncodedRequest]:
    from canvas.inference.batch import Request, encode_requests
    from canvas.inference.product import build_masked_product
    from canvas.pins.captions import format_caption

    found: list[Request] = []
    for pin in chosen:
        product = build_masked_product(pin.image, pin.mask)
        for prompt in prompts:
            text = format_caption(pin.product, prompt)
            found.append(Request(product=product, prompt=text, seed=seed + len(found)))
    return encode_requests(pipeline, found)


def _pictures(
    name: str, sampling: SamplingSpec, pipeline: CanvasPipeline, base: Path, requests: Sequence[EncodedRequest]
) -> list[Pixels]:
    """What the generator of one stage paints, in the order of the requests."""
    from canvas.denoiser.lora import fuse_loras
    from canvas.denoiser.schedulers import load_scheduler
    from canvas.denoiser.unet import load_denoiser
    from canvas.inference.batch import generate_images

    loras = STAGE_LORAS[name]
    own = (load_denoiser(base).eval().to(pipeline.device), load_scheduler(base)) if loras is None else None
    with fuse_loras(pipeline.unet, loras or ()):
        return generate_images(
            pipeline,
            requests,
            sampling,
            name=name,
            text_to_image=own,
        )


def _grid(count: int, prompts: Sequence[str], chosen: Sequence[ProductPin], pictures: Sequence[Pixels]) -> Image.Image:
    """Products by prompts, the original first."""
    from PIL import Image

    from canvas.pins.images import draw_contact_sheet

    width = len(prompts)
    shown: list[Image.Image] = []
    for row, pin in enumerate(chosen[:count]):
        shown += [pin.image, *(Image.fromarray(one) for one in pictures[row * width : (row + 1) * width])]
    labels = ["original", *prompts] * min(count, len(chosen))
    return draw_contact_sheet(shown, labels, columns=width + 1, cell=150)
