"""Scores of backgrounds by the generator as each training stage left it, and their diversity across products.

The noise decides much of a background, so a seed that serves a whole catalogue may give every product nearly the same
one. Distances of such backgrounds are compared with those at other seeds, and of real images of the same scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.denoiser.loading import is_inpaint_denoiser, load_denoiser
from canvas.denoiser.lora import fuse_loras, list_lora_names
from canvas.denoiser.schedulers import load_scheduler
from canvas.denoiser.spec import SamplingSpec
from canvas.inference.autoguidance import get_weak_denoiser
from canvas.inference.batch import Request, encode_requests, fit_prompt, generate_images
from canvas.inference.conditioning import frame_for_pipeline
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.masks.composite import dilate_mask
from canvas.pins import tables
from canvas.pins.images import Pixels, draw_contact_sheet
from canvas.pins.masks import Mask
from canvas.pins.products import ProductPin
from canvas.pins.scene_views import stack_views
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.generator import background_scores
from evaluation.generator.spec import BackgroundEvaluationSpec
from evaluation.judges.features import choose_view_side, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.colours import compare_colours, measure_background_colours
from evaluation.measures.distances import half_sample_error, kernel_distance
from evaluation.measures.mosaics import list_grids, measure_mosaic
from evaluation.statistics.intervals import resample_pair_mean

Distances = NDArray[np.float64]  # [N, N]

SIDE = 128  # pixels of the squares that are compared
EDGE, GREY = 3, 128  # pixels round a product that are hidden with it, and the byte that hides it

STAGE_LORAS: Mapping[str, tuple[str, ...] | None] = {
    "base": None,
    "inpaint": (),
    "backdrop": ("backdrop",),
    "engaged": ("backdrop", "engaged"),
    "aligned": ("backdrop", "engaged", "aligned"),
}
"""The LoRAs that are on in the generator as each stage left it; None: text-to-image, with the product put on its image.
The last is the whole generator: nothing more is on without a style."""


def list_stage_loras(pipeline: CanvasPipeline, base: Path) -> dict[str, tuple[str, ...] | None]:
    """Return STAGE_LORAS without the stages that left no LoRA in this generator, and without a base that inpaints."""
    lora_names = set(list_lora_names(pipeline.denoiser))
    stages = {name: loras for name, loras in STAGE_LORAS.items() if not loras or loras[-1] in lora_names}
    if is_inpaint_denoiser(base):
        del stages["base"]
    return {name: loras and tuple(lora for lora in loras if lora in lora_names) for name, loras in stages.items()}


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
    grids = list_grids(pipeline)
    by_stage: dict[str, dict[str, float]] = {}
    get_weak_denoiser(pipeline)  # while LoRAs are apart
    for name, loras in list_stage_loras(pipeline, base).items():
        text_to_image = (
            (load_denoiser(base).eval().to(pipeline.device), load_scheduler(base)) if loras is None else None
        )
        stage_sampling = sampling if loras else replace(sampling, autoguidance_scale=0.0)  # nothing is weaker
        with fuse_loras(pipeline.denoiser, loras or ()):
            images = generate_images(pipeline, encoded, stage_sampling, name=name, text_to_image=text_to_image)
        views = stack_views([Image.fromarray(image) for image in images], side)
        features = extract_trunk_features(views)
        product_ids = [pin.product_id or pin.pin_id for pin in pins for _ in prompts]
        scores = scorer.score(images, views, products, product_ids, [*prompts] * len(pins))
        by_stage[name] = background_scores.compute_background_metrics(scores)
        mosaic = measure_mosaic(images, [request.framed for request in encoded], grids)
        by_stage[name] |= background_scores.compute_crossed_means(
            mosaic, [(product, "all prompts") for product in product_ids]
        )
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


def measure_seed_diversity(
    pipeline: CanvasPipeline,
    pins: Sequence[ProductPin],
    prompts: Sequence[str],
    images: Sequence[Pixels],
    real: Sequence[Sequence[ProductPin]],
    spec: BackgroundEvaluationSpec,
    sampling: SamplingSpec,
) -> dict[str, float]:
    """Return mean distances of backgrounds of different products with their 95 % intervals over products.

    `distance` is at one seed, `distance_other_seeds` of the same products and prompts at a seed each, `distance_real`
    of real images of one scene; `of_other_seeds` and `of_real` are the ratios of the first to the others, and
    `other_seeds_of_real` that of the second to the third. Nothing of fewer than two products, or where products hide
    all of every pair; no ratio to real images without a distance of theirs.

    Args:
        pipeline: The generator; its LoRAs are merged into its weights.
        pins: Of products, of which the first of each takes part whose frame is the commonest.
        prompts: Backgrounds.
        images: Of every prompt for every pin, pin by pin, at a seed each.
        real: Pins of different products, scene by scene.
        spec: How many products and prompts take part; its first seed is the one.
        sampling: How images are sampled.
    """
    first_rows: dict[str, int] = {}
    for row in select_alike_frames(pipeline, pins):
        first_rows.setdefault(pins[row].product_id or pins[row].pin_id, row)
    rows = list(first_rows.values())[: spec.same_seed.products]
    if len(rows) < 2:
        return {}
    chosen = [pins[row] for row in rows]
    places = np.unique(np.linspace(0, len(prompts) - 1, min(spec.same_seed.prompts, len(prompts))).round().astype(int))
    pipeline.merge_lora()
    products = [build_masked_product(pin.image, pin.mask) for pin in chosen]
    requests = [
        Request(product=product, prompt=fit_prompt(pipeline, pin.product, prompts[place]), seed=spec.seed)
        for place in places
        for pin, product in zip(chosen, products, strict=True)
    ]
    same_seed_images = generate_images(pipeline, encode_requests(pipeline, requests), sampling, name="one seed")
    masks = [pin.mask for pin in chosen]
    # one matrix of all prompts, whose products are the same
    same, other = (
        np.mean([compute_background_distances(_to_images(members), masks) for members in by_prompt], axis=0)
        for by_prompt in (
            [same_seed_images[first : first + len(chosen)] for first in range(0, len(same_seed_images), len(chosen))],
            [[images[row * len(prompts) + place] for row in rows] for place in places],
        )
    )
    if not np.isfinite(same).any():
        return {}
    one_seed, other_seeds = resample_pair_mean([same]), resample_pair_mean([other], seed=1)
    means = {
        "distance": one_seed,
        "distance_other_seeds": other_seeds,
        "of_other_seeds": one_seed.divide_by(other_seeds),
    }
    matrices = [
        compute_background_distances([pin.image for pin in pins_of], [pin.mask for pin in pins_of])
        for pins_of in real
        if len(pins_of) > 1
    ]
    matrices = [matrix for matrix in matrices if np.isfinite(matrix).any()]
    if matrices:
        genuine = resample_pair_mean(matrices, seed=2)
        means |= {
            "distance_real": genuine,
            "of_real": one_seed.divide_by(genuine),
            "other_seeds_of_real": other_seeds.divide_by(genuine),
        }
    metrics: dict[str, float] = {"images": len(same_seed_images), "real_scenes": len(matrices)}
    for name, mean in means.items():
        metrics |= mean.to_interval().to_metrics(name)
    return metrics


def select_alike_frames(pipeline: CanvasPipeline, pins: Sequence[ProductPin]) -> list[int]:
    """Return the rows of the pins whose frame is the commonest: in frames of other sizes one seed is other noise."""
    frames = [frame_for_pipeline(pipeline, build_masked_product(pin.image, pin.mask)).frame for pin in pins]
    commonest, _ = Counter(frames).most_common(1)[0]
    return [row for row, frame in enumerate(frames) if frame == commonest]


def group_scene_pins(pins: Sequence[ProductPin], truth: Path, prompts: Sequence[str]) -> list[list[ProductPin]]:
    """Return for each prompt the pins of the scene of truth that it names; none for a prompt that names none."""
    rows = tables.read(truth, ["pin_id", "scene"]).to_pylist()
    scene_of = {row["pin_id"]: row["scene"] for row in rows if row["scene"]}
    scene_pins = [(pin, scene_of[pin.pin_id]) for pin in pins if pin.pin_id in scene_of]
    return [[pin for pin, scene in scene_pins if scene in prompt] for prompt in prompts]


def select_one_a_product(pins: Sequence[ProductPin], count: int) -> list[ProductPin]:
    """Return the first pin of each product, at most `count` of them."""
    by_product: dict[str, ProductPin] = {}
    for pin in pins:
        by_product.setdefault(pin.product_id or pin.pin_id, pin)
    return list(by_product.values())[:count]


def measure_scene_colours(
    pins: Sequence[ProductPin],
    prompts: Sequence[str],
    images: Sequence[Pixels],
    real: Sequence[Sequence[ProductPin]],
) -> dict[str, Any]:
    """Compare the backgrounds' mean colours and clipped pixels of each prompt with real images of its scene.

    Args:
        pins: Of products.
        prompts: Backgrounds.
        images: Of every prompt for every pin, pin by pin.
        real: Pins of each prompt's scene.

    Returns:
        `scenes_in_range`, the share of the prompts whose four means lie in the range of the real images; and
        `by_prompt`, with means and ranges. Nothing where no prompt has real pins.
    """
    masks = [pin.mask for pin in pins]
    by_prompt: dict[str, dict[str, float]] = {}
    for place, (prompt, scene) in enumerate(zip(prompts, real, strict=True)):
        generated = measure_background_colours(images[place :: len(prompts)], masks)
        genuine = measure_background_colours([np.asarray(pin.image) for pin in scene], [pin.mask for pin in scene])
        if len(generated) and len(genuine):
            by_prompt[prompt] = compare_colours(generated, genuine).to_metrics()
    if not by_prompt:
        return {}
    share = float(np.mean([metrics["in_range"] for metrics in by_prompt.values()]))
    return {"scenes_in_range": share, "by_prompt": by_prompt}


def compute_background_distances(images: Sequence[Image.Image], masks: Sequence[Mask]) -> Distances:
    """Return the distance of each two images' backgrounds; NaN: of an image to itself, or where products hide all.

    It is the Euclidean distance of the judges' features of the middle squares; both products are grey in both images.
    """
    views = stack_views(images, SIDE)
    hard = stack_views([Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks], SIDE)
    products = dilate_mask(torch.from_numpy(hard > 0)[:, None].float(), EDGE)[:, 0].numpy()
    matrix = np.full((len(images), len(images)), np.nan)
    for left, right in zip(*np.triu_indices(len(images), 1), strict=True):
        covered = products[left] | products[right]
        if not covered.all():
            pair = np.where(covered[..., None], np.uint8(GREY), views[[left, right]])
            first, second = extract_trunk_features(pair)
            matrix[left, right] = matrix[right, left] = np.linalg.norm(first - second)
    return matrix


def _to_images(pixels: Sequence[Pixels]) -> list[Image.Image]:
    return [Image.fromarray(image) for image in pixels]
