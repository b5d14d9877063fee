"""The segmenter over a table of pins, as columns of a Daft frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from canvas.segmenter.spec import EdgeSpec

if TYPE_CHECKING:
    import daft


def segment_pins(
    pins: daft.DataFrame,
    segmenter: Path,
    limits: MaskLimits,
    edges: EdgeSpec,
    *,
    batch_size: int,
    workers: int | None,
    threads: int,
) -> daft.DataFrame:
    """Columns of tables.MASKS for the frame's `pin_id` and `image`, in its order on the native runner.

    Lazy; each of `workers` processes (None: the engine's own) loads the segmenter once. Pictures that
    cannot be decoded are the filter's to drop: they raise.
    """
    import daft

    column = daft.DataType.struct(
        {
            "mask": daft.DataType.binary(),
            "alpha": daft.DataType.binary(),
            "confidence": daft.DataType.float32(),
            "box": daft.DataType.list(daft.DataType.int32()),
            "rejected": daft.DataType.string(),
        }
    )

    @daft.cls(max_concurrency=workers, use_process=False)
    class Masker:
        def __init__(self) -> None:
            import torch

            from canvas.device import default_device
            from canvas.segmenter.model import load_segmenter

            torch.set_num_threads(threads)
            self.segmenter = load_segmenter(segmenter).to(default_device())

        @daft.method.batch(return_dtype=column, batch_size=batch_size)
        def rows_of(self, images: daft.Series) -> list[dict[str, Any]]:
            from canvas.pins.images import decode_image

            alphas = self.segmenter.predict_alphas([decode_image(data) for data in images.to_pylist()], edges)
            return [build_mask_row(alpha, limits) for alpha in alphas]

    column_of: Any = Masker().rows_of  # Daft makes an expression of it
    found = pins.select("pin_id", column_of(pins["image"]).alias("found"))
    fields = [found["found"].get(name).alias(name) for name in ("mask", "alpha", "confidence", "box", "rejected")]
    return found.select("pin_id", *fields)


def build_mask_row(alpha: Alpha, limits: MaskLimits) -> dict[str, Any]:
    """Columns of tables.MASKS but pin_id."""
    mask = threshold_alpha(alpha, limits)
    return {
        "mask": encode_mask(mask),
        "alpha": encode_alpha(alpha),
        "confidence": compute_confidence(mask, alpha),
        "box": compute_box(mask),
        "rejected": find_rejection_reason(mask, alpha, limits),
    }
