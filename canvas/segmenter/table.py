"""The segmenter over a table of pins, as columns of a Daft frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from canvas.device import default_device
from canvas.pins import tables
from canvas.pins.masks import (
    Alpha,
    MaskLimits,
    compute_box,
    compute_confidence,
    encode_alpha,
    encode_mask,
    find_rejection_reason,
    threshold_alpha,
)
from canvas.pins.workers import Predictor, Workers, predict_columns
from canvas.segmenter.model import load_segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.train.spec import Precision

if TYPE_CHECKING:
    import daft


def segment_pins(
    pins: daft.DataFrame,
    segmenter: Path,
    limits: MaskLimits,
    edges: EdgeSpec,
    workers: Workers,
    precision: Precision,
) -> daft.DataFrame:
    """Return the columns of tables.MASKS for a frame with `pin_id` and `image`; lazy, in its order."""

    def load_predictor() -> Predictor:
        device = default_device()
        model, dtype = load_segmenter(segmenter).to(device), choose_autocast_dtype(device, precision)

        def predict_masks(images: Sequence[Image.Image]) -> list[dict[str, Any]]:
            with autocast(dtype, device):
                return [build_mask_row(alpha, limits) for alpha in model.predict_alphas(images, edges)]

        return predict_masks

    return predict_columns(pins, load_predictor, tables.MASKS, workers)


def build_mask_row(alpha: Alpha, limits: MaskLimits) -> dict[str, Any]:
    """Return the columns of tables.MASKS but pin_id."""
    mask = threshold_alpha(alpha, limits)
    return {
        "mask": encode_mask(mask),
        "alpha": encode_alpha(alpha),
        "confidence": compute_confidence(mask, alpha),
        "box": compute_box(mask) if mask.any() else None,
        "rejected": find_rejection_reason(mask, alpha, limits),
    }
