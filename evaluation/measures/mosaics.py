"""How much of a mosaic whole images show: changes across borders of the denoiser's cells and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from canvas.denoiser.loading import get_family
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import FramedProduct
from canvas.pins.images import Pixels
from canvas.vae.model import get_scale_factor
from evaluation.measures.decoders import compute_grid_ratio


def list_grids(pipeline: CanvasPipeline) -> dict[str, int]:
    """Return the pixels between the lines of each grid that a generator's images may show, in its frames."""
    cell, patch = get_scale_factor(pipeline.vae), get_family(pipeline.denoiser).patch
    return {"cell": cell} | ({"token": patch * cell} if patch > 1 else {})


def measure_mosaic(
    images: Sequence[Pixels], framed: Sequence[FramedProduct], grids: Mapping[str, int]
) -> dict[str, list[float | None]]:
    """Return, for each grid, `compute_grid_ratio` of the background of each image in the model's frame.

    Args:
        images: (h, w, 3), each of its product image's size.
        framed: The product of each, in its frame.
        grids: Name -> pixels between the lines.

    Returns:
        `token_gradient_ratio` and its like -> a number an image; None: nothing of its background lies on a line.
    """
    ratios: dict[str, list[float | None]] = {f"{name}_gradient_ratio": [] for name in grids}
    for image, product in zip(images, framed, strict=True):
        inside = product.frame.insert_product(np.ones(image.shape[:2], np.float32)) > 0.999
        pixels = torch.from_numpy(product.frame.insert_product(image.astype(np.float32))).permute(2, 0, 1)[None]
        hidden = torch.maximum(product.mask.cpu(), 1 - torch.from_numpy(inside).float())
        for name, side in grids.items():
            ratio = float(compute_grid_ratio(pixels, hidden, side))
            ratios[f"{name}_gradient_ratio"].append(ratio if np.isfinite(ratio) else None)
    return ratios
