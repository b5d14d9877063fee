"""Stage `train_captioner`: images and captions in, a captioner out."""

from __future__ import annotations

import time

from canvas.captioner.spec import CaptionerTrainingSpec
from canvas.train.spec import Training
from components import artifacts
from components.artifacts import Kept, Pins, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage


@stage(machine="gpu")
def train_captioner(
    train_captioner: CaptionerTrainingSpec,
    training: Training,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    model: Output[artifacts.Captioner],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the captioner on the train split, and score its captions of the held-out splits."""
    from canvas.captioner.captions import load_captioned_pins
    from canvas.captioner.model import load_public_captioner
    from canvas.captioner.table import caption_images
    from canvas.captioner.training import fit_captioner
    from canvas.device import default_device
    from canvas.pins import tables
    from evaluation.measures.captions import compute_caption_metrics, score_captions

    params, clock = train_captioner, time.perf_counter()
    captioned = load_captioned_pins(pins.path, truth.path, tables.read_kept_splits(pins.path, kept.path))
    values: dict[str, object] = {}
    curve: list[tuple[int, float]] = []
    if params.init_from is not None:
        captioner = load_public_captioner(params.init_from, params.asking)
        captioner.model.to(default_device())
    else:
        train_captions = {pin_id: pin.caption for pin_id, pin in captioned.items() if pin.split == "train"}
        captioner, result = fit_captioner(
            params, training, pins.path, train_captions, checkpoints=scratch.path / "checkpoints", log=log.metrics
        )
        curve, values["images_per_second"] = result.losses, result.images_per_second
    captioner.save(model.path)
    trained = time.perf_counter()

    held_out = {pin_id for pin_id, pin in captioned.items() if pin.has_truth and pin.split != "train"}
    scores = score_captions(caption_images(captioner, pins.path, held_out, params.batch_size), captioned)
    scored = time.perf_counter()
    values |= compute_caption_metrics(scores)
    values["seconds"] = {"train": trained - clock, "score": scored - trained}
    values["captions_per_second"] = len(scores) / (scored - trained)
    metrics.write(values)
    losses.write(curve)
