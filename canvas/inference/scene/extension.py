"""The surroundings of a photograph that is extended: next to it they begin as its mirror image.

A denoiser sees the photograph and goes on with it, but only roughly: another street, another wall. So what lies next to
the photograph is there already, mirrored at its border, and is the less kept the further away it is. Where the mirror
image shows the product nothing is kept: it would be there twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.inference.conditioning import load_segmenter
from canvas.inference.known_latents import KnownLatents, encode_known
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

V = TypeVar("V", np.uint8, np.float32)

REACH_SHARE = 0.4
"""Distance from the photograph at which nothing of its mirror image stays, over the frame's shorter side."""
PRODUCT_ALPHA = 0.1
"""Mean opacity of a latent cell from which it shows the product."""


def know_surroundings(pipeline: CanvasPipeline, photograph: Pixels, is_photograph: Mask) -> KnownLatents:
    """Return what a frame shows before a photograph in it is extended.

    Args:
        pipeline: Whose autoencoder, and whose segmenter, if it has one, are used.
        photograph: (h, w, 3), of the whole frame; what it is beyond the photograph does not matter.
        is_photograph: (h, w), a rectangle.
    """
    clean = encode_known(pipeline, mirror_photograph(photograph, is_photograph))
    height, width = clean.shape[2:]

    def shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.float32)

    away = cv2.distanceTransform((~is_photograph).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip(shrink(np.asarray(away, np.float32)) / (REACH_SHARE * min(is_photograph.shape)), 0, 1)
    strengths = share**2 * (3 - 2 * share)
    segmenter = load_segmenter(pipeline)
    if segmenter is not None:
        rows, columns = _find_rectangle(is_photograph)
        (alpha,) = segmenter[0].predict_alphas([Image.fromarray(photograph[rows, columns])], segmenter[1])
        product = np.zeros(is_photograph.shape, np.float32)
        product[rows, columns] = alpha
        mirrored = mirror_photograph(product, is_photograph)
        strengths[(shrink(mirrored) >= PRODUCT_ALPHA) & (share > 0)] = 1
    return KnownLatents(clean, torch.from_numpy(strengths)[None, None].to(clean))


def mirror_photograph(values: NDArray[V], is_photograph: Mask) -> NDArray[V]:
    """Return `values` (h, w, ...) in the rectangle `is_photograph` (h, w), and their mirror images round it."""
    rows, columns = _find_rectangle(is_photograph)
    height, width = is_photograph.shape
    sides = [(rows.start, height - rows.stop), (columns.start, width - columns.stop)]
    padding = sides + [(0, 0)] * (values.ndim - 2)
    return np.pad(values[rows, columns], padding, mode="symmetric")


def _find_rectangle(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
