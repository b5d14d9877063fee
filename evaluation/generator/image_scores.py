"""Painted pictures of products measured: what a judge sees in them, how the product grew or shrank, its seams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.generator.backgrounds import BackgroundScore, measure_growth
from evaluation.judges.features import extract_scene_features

if TYPE_CHECKING:
    from canvas.inference.product import Product
    from canvas.pins.scene_views import Views
    from canvas.segmenter.model import Segmenter
    from canvas.segmenter.spec import EdgeSpec
    from evaluation.judges.judges import Judges


def score_images(
    pictures: Sequence[NDArray[np.uint8]],
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
    """Scores of `pictures` (h, w, 3), each painted round a product of its size.

    `views`: the pictures as judges see them. `prompts`: their backgrounds. `seam_side`, `reach`: see `seam_gradients`.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    seams = measure_seam_gradients(pictures, products, seam_side, reach)
    scores = []
    for first in range(0, len(images), batch_size):
        alphas = segmenter.alphas(images[first : first + batch_size], edges)
        for place, alpha in enumerate(alphas, first):
            product = products[place]
            extension, erosion = measure_growth(product.alpha >= 0.5, alpha >= 0.5)
            changed = np.abs(pictures[place].astype(int) - product.pixels)[product.core]
            scores.append((extension, erosion, int(changed.max(initial=0))))
    return [
        BackgroundScore(
            product=product_id,
            scene=judges.prompted(prompt),
            seen=seen,
            seen_sharp=sharp,
            extension=extension,
            erosion=erosion,
            seam=seam,
            core_difference=difference,
        )
        for product_id, prompt, (seen, sharp), seam, (extension, erosion, difference) in zip(
            product_ids, prompts, judges.seen(extract_scene_features(views, batch_size)), seams, scores, strict=True
        )
    ]


def measure_seam_gradients(
    pictures: Sequence[NDArray[np.uint8]], products: Sequence[Product], side: int, reach: int
) -> list[float | None]:
    """Mean gradient round the product's edge in the middle square of each picture (h, w, 3), shown at `side` pixels,
    `reach` of them on each side of the edge; None where the square shows no edge."""
    import torch

    from canvas.masks.composite import compute_seam_gradient
    from canvas.pins.pixels import bytes_to_tensor
    from canvas.pins.scene_views import crop_center_square

    views = np.stack([crop_center_square(Image.fromarray(picture), side) for picture in pictures])
    masks = [
        crop_center_square(Image.fromarray(((p.alpha >= 0.5) * 255).astype(np.uint8)), side) >= 128 for p in products
    ]
    images = bytes_to_tensor(torch.from_numpy(views)).permute(0, 3, 1, 2)
    found: list[Any] = compute_seam_gradient(images, torch.from_numpy(np.stack(masks))[:, None].float(), reach).tolist()
    return [None if np.isnan(value) else value for value in found]
