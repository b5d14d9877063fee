"""Scores of generated images of products: recognized scene, growth of the product, change of its core, seams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from evaluation.generator.backgrounds import BackgroundScore, measure_growth
from evaluation.judges.features import extract_scene_features

if TYPE_CHECKING:
    from canvas.inference.product import Product
    from canvas.pins.images import Pixels
    from canvas.pins.scene_views import Views
    from canvas.segmenter.model import Segmenter
    from canvas.segmenter.spec import EdgeSpec
    from evaluation.judges.judges import Judges


def score_images(
    images: Sequence[Pixels],
    views: Views,
    products: Sequence[Product],
    product_ids: Sequence[str],
    prompts: Sequence[str],
    *,
    judges: Judges,
    segmenter: Segmenter,
    edges: EdgeSpec,
    seam_side: int,
    reach: int,
    batch_size: int,
) -> list[BackgroundScore]:
    """Return the score of each image.

    Args:
        images: Generated round a product of its size, (h, w, 3) each.
        views: The images as judges see them, [N, side, side, 3].
        products: What each image shows.
        product_ids: Images of one product are not independent.
        prompts: Their backgrounds.
        judges: Of scenes.
        segmenter: Finds the product in an image.
        edges: How its alpha is refined.
        seam_side: Pixels of the square that seams are measured in.
        reach: Pixels on each side of the product's edge.
        batch_size: Images at once.
    """
    seams = measure_seam_gradients(images, products, seam_side, reach)
    scenes = judges.recognize_scenes(extract_scene_features(views, batch_size))
    alphas = [
        alpha
        for first in range(0, len(images), batch_size)
        for alpha in segmenter.predict_alphas(
            [Image.fromarray(image) for image in images[first : first + batch_size]], edges
        )
    ]
    growths = [
        measure_growth(product.alpha >= 0.5, alpha >= 0.5) for product, alpha in zip(products, alphas, strict=True)
    ]
    return [
        BackgroundScore(
            product=product_ids[index],
            scene=judges.match_prompt(prompts[index]),
            seen=scenes[index][0],
            seen_sharp=scenes[index][1],
            extension=growths[index][0],
            erosion=growths[index][1],
            seam=seams[index],
            core_difference=measure_core_difference(image, product),
        )
        for index, (image, product) in enumerate(zip(images, products, strict=True))
    ]


def measure_core_difference(image: Pixels, product: Product) -> int:
    """Return the largest change of a byte on the product's core, 0..255."""
    return int(np.abs(image.astype(int) - product.pixels)[product.core].max(initial=0))


def measure_seam_gradients(
    images: Sequence[Pixels], products: Sequence[Product], side: int, reach: int
) -> list[float | None]:
    """Return the mean gradient round the product's edge in the middle square of each image (h, w, 3).

    The square is resized to `side` pixels, and `reach` of them count on each side of the edge; None: it has no edge.
    """
    import torch

    from canvas.masks.composite import compute_seam_gradient
    from canvas.pins.images import bytes_to_tensor
    from canvas.pins.scene_views import stack_views

    views = stack_views([Image.fromarray(image) for image in images], side)
    hard = [Image.fromarray(((product.alpha >= 0.5) * 255).astype(np.uint8)) for product in products]
    masks = torch.from_numpy(stack_views(hard, side) >= 128)[:, None].float()
    pixels = bytes_to_tensor(torch.from_numpy(views)).permute(0, 3, 1, 2)
    gradients: list[float] = compute_seam_gradient(pixels, masks, reach).tolist()
    return [None if np.isnan(value) else value for value in gradients]
