"""Scores of backgrounds by the generator as each training stage left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from evaluation.generator.backgrounds import compute_background_metrics, compute_scene_accuracies
from evaluation.generator.image_scores import measure_seam_gradients, score_images
from evaluation.judges.features import choose_view_side, extract_trunk_features
from evaluation.measures.distances import half_sample_error, kernel_distance

if TYPE_CHECKING:
    from canvas.denoiser.spec import SamplingSpec
    from canvas.inference.batch import EncodedRequest
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins.images import Pixels
    from canvas.pins.products import ProductPin
    from evaluation.generator.spec import BackgroundEvaluationSpec
    from evaluation.judges.judges import Judges

STAGE_LORAS: Mapping[str, tuple[str, ...] | None] = {
    "base": None,
    "inpaint": (),
    "backdrop": ("backdrop",),
    "engaged": ("backdrop", "engaged"),
}
"""The LoRAs that are on in the generator as each stage left it; None: text-to-image, with the product put on its image.
The last is the whole generator: nothing more is on without a style."""


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
    """Generate and score backgrounds of every prompt for every pin by each stage of STAGE_LORAS.

    Args:
        pipeline: The assembled generator.
        base: Directory of the text-to-image denoiser.
        pins: The products.
        prompts: Backgrounds.
        real: Pins that generated images are compared with.
        spec: Seed of the first image, and reach of seams.
        sampling: How images are sampled.
        frame_side: Pixels of the squares that seams are measured in.
        judges: Of scenes.

    Returns:
        Metrics by stage; and of the last stage scene accuracy by scene and the images, pin by pin.
    """
    from canvas.pins.scene_views import stack_views
    from canvas.segmenter.model import Segmenter
    from canvas.segmenter.spec import EdgeSpec

    network = pipeline.segmenter
    segmenter = Segmenter(network, pipeline.segmenter_processor, network.config.background_labels).eval()
    edges = EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"])
    requests = build_requests(pipeline, pins, prompts, spec.seed)
    products = [encoded.request.product for encoded in requests]
    seams = measure_seam_gradients([product.pixels for product in products], products, frame_side, spec.seam_reach)
    real_seam, side = np.mean([seam for seam in seams if seam is not None]), choose_view_side(frame_side)
    real_features = extract_trunk_features(stack_views([pin.image for pin in real], side))
    by_stage: dict[str, dict[str, float]] = {}
    for name in STAGE_LORAS:
        images = generate_stage(name, pipeline, base, requests, sampling)
        views = stack_views([Image.fromarray(image) for image in images], side)
        features = extract_trunk_features(views)
        scores = score_images(
            images,
            views,
            products,
            [pin.product_id or pin.pin_id for pin in pins for _ in prompts],
            [prompt for _ in pins for prompt in prompts],
            judges=judges,
            segmenter=segmenter,
            edges=edges,
            seam_side=frame_side,
            reach=spec.seam_reach,
            batch_size=sampling.batch_size,
        )
        by_stage[name] = compute_background_metrics(scores) | {
            "kid": kernel_distance(real_features, features),
            "kid_error": half_sample_error(kernel_distance, real_features, features),
            "seam_gradient_ratio": float(np.mean([s.seam for s in scores if s.seam is not None]) / real_seam),
        }
    return by_stage, compute_scene_accuracies(scores), images


def build_requests(
    pipeline: CanvasPipeline, pins: Sequence[ProductPin], prompts: Sequence[str], seed: int
) -> list[EncodedRequest]:
    """Return an encoded request for every prompt of every pin, with ascending seeds from `seed`."""
    from canvas.inference.batch import Request, encode_requests
    from canvas.inference.product import build_masked_product
    from canvas.pins.captions import format_caption

    requests: list[Request] = []
    for pin in pins:
        product = build_masked_product(pin.image, pin.mask)
        for prompt in prompts:
            text = format_caption(pin.product, prompt)
            requests.append(Request(product=product, prompt=text, seed=seed + len(requests)))
    return encode_requests(pipeline, requests)


def generate_stage(
    name: str, pipeline: CanvasPipeline, base: Path, requests: Sequence[EncodedRequest], sampling: SamplingSpec
) -> list[Pixels]:
    """Return the images of one stage of STAGE_LORAS, in the order of the requests."""
    from canvas.denoiser.lora import fuse_loras
    from canvas.denoiser.schedulers import load_scheduler
    from canvas.denoiser.unet import load_denoiser
    from canvas.inference.batch import generate_images

    loras = STAGE_LORAS[name]
    own = (load_denoiser(base).eval().to(pipeline.device), load_scheduler(base)) if loras is None else None
    with fuse_loras(pipeline.unet, loras or ()):
        return generate_images(pipeline, requests, sampling, name=name, text_to_image=own)


def draw_background_grid(pins: Sequence[ProductPin], prompts: Sequence[str], images: Sequence[Pixels]) -> Image.Image:
    """Draw a row a pin: the original, then its image of every prompt."""
    from canvas.pins.images import draw_contact_sheet

    width = len(prompts)
    cells: list[Image.Image] = []
    for row, pin in enumerate(pins):
        cells += [pin.image, *map(Image.fromarray, images[row * width : (row + 1) * width])]
    return draw_contact_sheet(cells, ["original", *prompts] * len(pins), columns=width + 1, cell=150)
