"""Scores of backgrounds by the generator as each training stage left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.denoiser.loading import is_inpaint_denoiser, load_denoiser
from canvas.denoiser.lora import fuse_loras, list_lora_names
from canvas.denoiser.schedulers import load_scheduler
from canvas.denoiser.spec import SamplingSpec
from canvas.inference.batch import Request, encode_requests, fit_prompt, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins.images import Pixels, draw_contact_sheet
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import stack_views
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator import background_scores
from evaluation.generator.spec import BackgroundEvaluationSpec
from evaluation.judges.features import choose_view_side, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.distances import half_sample_error, kernel_distance

STAGE_LORAS: Mapping[str, tuple[str, ...] | None] = {
    "base": None,
    "inpaint": (),
    "backdrop": ("backdrop",),
    "engaged": ("backdrop", "engaged"),
}
"""The LoRAs that are on in the generator as each stage left it; None: text-to-image, with the product put on its image.
The last is the whole generator: nothing more is on without a style."""


def list_stage_loras(pipeline: CanvasPipeline, base: Path) -> dict[str, tuple[str, ...] | None]:
    """Return STAGE_LORAS without the stages that left no LoRA in this generator, and without a base that inpaints."""
    made = set(list_lora_names(pipeline.denoiser))
    stages = {name: loras for name, loras in STAGE_LORAS.items() if not loras or loras[-1] in made}
    if is_inpaint_denoiser(base):
        del stages["base"]
    return {name: loras and tuple(lora for lora in loras if lora in made) for name, loras in stages.items()}


def score_stages(
    pipeline: CanvasPipeline,
    base: Path,
    pins: Sequence[ProductPin],
    prompts: Sequence[str],
    real: Sequence[ProductPin],
    *,
    spec: BackgroundEvaluationSpec,
    sampling: SamplingSpec,
    frame_side: int,
    judges: Judges,
) -> tuple[dict[str, dict[str, float]], dict[str, float], list[Pixels]]:
    """Generate and score backgrounds of every prompt for every pin by each stage of STAGE_LORAS that there is.

    Args:
        base: Directory of the text-to-image denoiser.
        real: Pins that generated images are compared with.
        frame_side: Pixels of the squares that seams are measured in.

    Returns:
        Metrics by stage; and of the last stage scene accuracy by scene and the images, pin by pin.
    """
    side = choose_view_side(frame_side)
    scorer = background_scores.BackgroundScorer(
        judges=judges,
        segmenter=Segmenter(pipeline.segmenter, pipeline.segmenter_processor).eval(),
        edges=EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"]),
        seam_side=frame_side,
        seam_reach=spec.seam_reach,
        batch_size=sampling.batch_size,
    )
    products = [product for pin in pins for product in [build_masked_product(pin.image, pin.mask)] * len(prompts)]
    texts = [fit_prompt(pipeline, pin.product, prompt) for pin in pins for prompt in prompts]
    seeded = enumerate(zip(products, texts, strict=True), spec.seed)
    requests = [Request(product=product, prompt=text, seed=seed) for seed, (product, text) in seeded]
    encoded = encode_requests(pipeline, requests)
    seams = background_scores.measure_seam_gradients(
        [product.pixels for product in products], products, frame_side, spec.seam_reach
    )
    real_seams = [seam for seam in seams if seam is not None]
    real_features = extract_trunk_features(stack_views([pin.image for pin in real], side))
    by_stage: dict[str, dict[str, float]] = {}
    for name, loras in list_stage_loras(pipeline, base).items():
        own = (load_denoiser(base).eval().to(pipeline.device), load_scheduler(base)) if loras is None else None
        with fuse_loras(pipeline.denoiser, loras or ()):
            images = generate_images(pipeline, encoded, sampling, name=name, text_to_image=own)
        views = stack_views([Image.fromarray(image) for image in images], side)
        features = extract_trunk_features(views)
        product_ids = [pin.product_id or pin.pin_id for pin in pins for _ in prompts]
        scores = scorer.score(images, views, products, product_ids, [*prompts] * len(pins))
        by_stage[name] = background_scores.compute_background_metrics(scores)
        if min(len(real_features), len(features)) > 1:
            by_stage[name] |= {
                "kid": kernel_distance(real_features, features),
                "kid_error": half_sample_error(kernel_distance, real_features, features),
            }
        if real_seams:
            seam = np.mean([score.seam for score in scores if score.seam is not None])
            by_stage[name]["seam_gradient_ratio"] = float(seam / np.mean(real_seams))
    return by_stage, background_scores.compute_scene_accuracies(scores), images


def draw_background_grid(pins: Sequence[ProductPin], prompts: Sequence[str], images: Sequence[Pixels]) -> Image.Image:
    """Draw a row a pin: the original, then its image of every prompt."""
    width = len(prompts)
    cells: list[Image.Image] = []
    for row, pin in enumerate(pins):
        cells += [pin.image, *map(Image.fromarray, images[row * width : (row + 1) * width])]
    return draw_contact_sheet(cells, ["original", *prompts] * len(pins), columns=width + 1, cell=150)
