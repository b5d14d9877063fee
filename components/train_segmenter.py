"""Stage `train_segmenter`: pictures and true mattes in, a product segmenter out."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.segmenter.spec import AugmentSpec, EdgeSpec, UNetSpec
from canvas.train.spec import TrainableParams, Training, TrainSpec
from components import artifacts
from components.artifacts import Kept, Pins, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage

if TYPE_CHECKING:
    from canvas.segmenter.model import Segmenter
    from canvas.train.loop import TrainResult
    from evaluation.measures.masks import MaskScore


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSegmenterParams(TrainableParams):
    init_from: str | None  # path or hub id of a transformers semantic segmentation model; null: the U-Net below
    background: tuple[str, ...]  # classes of an untrained init_from model that are no product
    unet: UNetSpec | None  # null with init_from
    augment: AugmentSpec | None  # null with train: null
    threshold: float  # alpha from which a pixel is product, when scored
    score_batch: int  # pictures at once, when scored

    def __post_init__(self) -> None:
        if (self.init_from is None) == (self.unet is None):
            raise ValueError("train_segmenter: give init_from or unet, and null for the other")
        if (self.train is None) != (self.augment is None):
            raise ValueError("train_segmenter: give both train and augment, or null for both")
        if self.train is None and self.init_from is None:
            raise ValueError("train_segmenter.train is null: a U-Net from scratch needs training, or name init_from")
        if self.train is not None and self.background:
            raise ValueError(
                f"train_segmenter.background is {list(self.background)}: training replaces the classes by one, "
                "product; give [] or set train and augment to null"
            )


@stage(machine="gpu")
def train_segmenter(
    train_segmenter: TrainSegmenterParams,
    training: Training,
    edges: EdgeSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    model: Output[artifacts.Segmenter],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the product segmenter on true alphas of the train split, and score it on the held-out splits."""
    import torch

    from canvas.device import default_device
    from canvas.pins import tables
    from evaluation.measures.masks import compute_mask_metrics

    params, clock = train_segmenter, time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    torch.manual_seed(training.seed)
    segmenter = _initialize_segmenter(params)
    figures: dict[str, object] = {}
    curve: list[tuple[int, float]] = []
    if params.train is not None and params.augment is not None:
        wanted = {pin_id for pin_id, split in split_of.items() if split == "train"}
        spec = training.resolve(params.train)
        fitted = _fit_segmenter(segmenter, spec, params.augment, pins.path, truth.path, wanted, log, scratch)
        curve, figures["images_per_second"] = fitted.losses, fitted.images_per_second
    segmenter.save(model.path)
    trained = time.perf_counter()

    held_out = {pin_id: split for pin_id, split in split_of.items() if split != "train"}
    segmenter.eval().to(default_device())
    figures |= compute_mask_metrics(_score_segmenter(segmenter, params, edges, pins.path, truth.path, held_out))
    figures["seconds"] = {"train": trained - clock, "score": time.perf_counter() - trained}
    metrics.write(figures)
    losses.write(curve)


def _initialize_segmenter(params: TrainSegmenterParams) -> Segmenter:
    from canvas.segmenter.model import build_segmenter, load_segmenter, load_trainable_segmenter

    if params.unet is not None:
        return build_segmenter(params.unet)
    assert params.init_from is not None
    if params.train is None:
        return load_segmenter(params.init_from, params.background)
    return load_trainable_segmenter(params.init_from)


def _fit_segmenter(
    segmenter: Segmenter,
    spec: TrainSpec,
    augment: AugmentSpec,
    pins: Path,
    truth: Path,
    wanted: Collection[str],
    log: StepLog,
    scratch: Scratch,
) -> TrainResult:
    from canvas.segmenter.objective import SegmentationObjective
    from canvas.segmenter.training_data import CopyPasteBatches, load_segmentation_data
    from canvas.train.loop import fit

    cutouts = load_segmentation_data(pins, truth, wanted, segmenter.size)
    batches = CopyPasteBatches(cutouts, spec.batch_size, spec.seed)
    return fit(
        segmenter,
        SegmentationObjective(augment),
        batches,
        spec,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
    )


def _score_segmenter(
    segmenter: Segmenter,
    params: TrainSegmenterParams,
    edges: EdgeSpec,
    pins: Path,
    truth: Path,
    held_out: Mapping[str, str],
) -> Iterator[MaskScore]:
    import numpy as np

    from canvas.pins import tables
    from canvas.pins.images import decode_image
    from canvas.pins.masks import decode_mask
    from evaluation.measures.masks import score_mask

    true = {
        row["pin_id"]: row["alpha"]
        for batch in tables.read_batches(truth, ["pin_id", "alpha"])
        for row in batch.to_pylist()
        if row["pin_id"] in held_out
    }
    for batch in tables.read_batches(pins, ["pin_id", "image"], params.score_batch):
        rows = [row for row in batch.to_pylist() if row["pin_id"] in true]
        images = [decode_image(row["image"]) for row in rows]
        for row, alpha in zip(rows, segmenter.alphas(images, edges) if rows else [], strict=True):
            png = true[row["pin_id"]]
            known = np.zeros(alpha.shape, bool) if png is None else decode_mask(png)
            yield score_mask(row["pin_id"], held_out[row["pin_id"]], alpha >= params.threshold, known)
