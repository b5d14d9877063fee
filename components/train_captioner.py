"""Stage `train_captioner`: pictures and captions in, a captioner out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from canvas.captioner.spec import CaptioningSpec, DecoderSpec
from canvas.train.spec import TrainableParams, Training
from components import artifacts
from components.artifacts import Kept, Pins, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage

if TYPE_CHECKING:
    from canvas.captioner.captions import CaptionedPin
    from canvas.captioner.model import Captioner
    from canvas.train.loop import TrainResult
    from evaluation.measures.captions import CaptionScore


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCaptionerParams(TrainableParams):
    init_from: str | None  # path or hub id of a transformers image-text-to-text model, used as it is; null: train one
    asking: CaptioningSpec
    decoder: DecoderSpec | None  # null with init_from, as are train and drop
    drop: float | None  # fraction of the image features withheld in training
    batch_size: int  # pictures at once, for features and for scoring

    def __post_init__(self) -> None:
        absent = [name for name in ("decoder", "drop", "train") if getattr(self, name) is None]
        if self.init_from is None and absent:
            raise ValueError(
                f"train_captioner: {', '.join(absent)} must be given to train one, or init_from to name one"
            )
        if self.init_from is not None and len(absent) < 3:
            raise ValueError(
                "train_captioner: an init_from model is used as it is; set decoder, drop and train to null"
            )


@stage(machine="gpu")
def train_captioner(
    train_captioner: TrainCaptionerParams,
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
    from canvas.captioner.model import load_captioner
    from canvas.device import default_device
    from canvas.pins import tables
    from evaluation.measures.captions import compute_caption_metrics

    params, clock = train_captioner, time.perf_counter()
    words = load_captioned_pins(pins.path, truth.path, tables.read_kept_splits(pins.path, kept.path))
    figures: dict[str, object] = {}
    curve: list[tuple[int, float]] = []
    if params.init_from is not None:
        captioner = load_captioner(params.init_from, params.asking)
        captioner.model.to(default_device())
    else:
        captioner, fitted = _train_captioner(params, training, pins.path, words, log, scratch)
        curve, figures["images_per_second"] = fitted.losses, fitted.images_per_second
    captioner.save(model.path)
    trained = time.perf_counter()

    scores = list(_score_captions(captioner, params, pins.path, words))
    scored = time.perf_counter()
    figures |= compute_caption_metrics(scores)
    figures["seconds"] = {"train": trained - clock, "score": scored - trained}
    figures["captions_per_second"] = len(scores) / (scored - trained)
    metrics.write(figures)
    losses.write(curve)


def _train_captioner(
    params: TrainCaptionerParams,
    training: Training,
    pins: Path,
    words: Mapping[str, CaptionedPin],
    log: StepLog,
    scratch: Scratch,
) -> tuple[Captioner, TrainResult]:
    import torch

    from canvas.captioner.model import build_captioner
    from canvas.captioner.objective import CaptionObjective
    from canvas.captioner.tokenizer import train_tokenizer
    from canvas.captioner.training_data import load_caption_batches
    from canvas.device import default_device
    from canvas.train.loop import fit

    assert params.decoder is not None
    assert params.train is not None
    assert params.drop is not None
    spec = training.resolve(params.train)
    captions = {pin_id: pin.caption for pin_id, pin in words.items() if pin.split == "train"}
    torch.manual_seed(spec.seed)
    tokenizer = train_tokenizer(captions.values(), params.decoder.vocabulary)
    captioner = build_captioner(params.decoder, tokenizer, params.asking)
    captioner.model.to(default_device())
    batches = load_caption_batches(
        captioner,
        pins,
        captions,
        rows_at_once=params.batch_size,
        batch_size=spec.batch_size,
        seed=spec.seed,
    )
    fitted = fit(
        captioner.model,
        CaptionObjective(params.drop),
        batches,
        spec,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
    )
    captioner.model.eval()
    return captioner, fitted


def _score_captions(
    captioner: Captioner, params: TrainCaptionerParams, pins: Path, words: Mapping[str, CaptionedPin]
) -> Iterator[CaptionScore]:
    from canvas.pins import tables
    from canvas.pins.captions import parse_caption
    from canvas.pins.images import decode_image
    from evaluation.measures.captions import learn_category_nouns, score_caption

    nouns = learn_category_nouns(
        (parse_caption(pin.caption)[0], pin.category) for pin in words.values() if pin.split == "train"
    )
    held_out = {pin_id: pin for pin_id, pin in words.items() if pin.true and pin.split != "train"}
    for batch in tables.read_batches(pins, ["pin_id", "image"], params.batch_size):
        rows = [row for row in batch.to_pylist() if row["pin_id"] in held_out]
        captions = captioner.captions([decode_image(row["image"]) for row in rows]) if rows else []
        for row, caption in zip(rows, captions, strict=True):
            pin = held_out[row["pin_id"]]
            yield score_caption(
                row["pin_id"],
                pin.split,
                caption,
                pin.caption,
                pin.scene,
                pin.category,
                parse=parse_caption,
                nouns=nouns,
            )
