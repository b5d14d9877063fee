"""Stage `train_segmenter`: images and true mattes in, a product segmenter out."""

from __future__ import annotations

import time

from canvas.segmenter.spec import EdgeSpec, SegmenterTrainingSpec
from canvas.train.spec import Training
from components import artifacts
from components.artifacts import Kept, Pins, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage


@stage(machine="gpu")
def train_segmenter(
    train_segmenter: SegmenterTrainingSpec,
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
    from canvas.segmenter.model import initialize_segmenter
    from canvas.segmenter.training import SegmentationObjective, load_copy_paste_batches
    from canvas.train.loop import fit
    from evaluation.measures.masks import compute_mask_metrics, score_segmenter

    params, clock = train_segmenter, time.perf_counter()
    split_of = tables.read_kept_splits(pins.path, kept.path)
    torch.manual_seed(training.seed)
    segmenter = initialize_segmenter(params)
    values: dict[str, object] = {}
    curve: list[tuple[int, float]] = []
    if params.train is not None and params.augment is not None:
        spec = training.resolve(params.train)
        train_ids = {pin_id for pin_id, split in split_of.items() if split == "train"}
        batches = load_copy_paste_batches(pins.path, truth.path, train_ids, segmenter.size, spec)
        objective, checkpoints = SegmentationObjective(params.augment), scratch.path / "checkpoints"
        result = fit(segmenter, objective, batches, spec, checkpoints=checkpoints, log=log.metrics)
        curve, values["images_per_second"] = result.losses, result.images_per_second
    segmenter.save(model.path)
    trained = time.perf_counter()

    held_out = {pin_id: split for pin_id, split in split_of.items() if split != "train"}
    segmenter.eval().to(default_device())
    scores = score_segmenter(
        segmenter, edges, pins.path, truth.path, held_out, threshold=params.threshold, batch_size=params.score_batch
    )
    values |= compute_mask_metrics(scores)
    values["seconds"] = {"train": trained - clock, "score": time.perf_counter() - trained}
    metrics.write(values)
    losses.write(curve)
