"""Stage `train_clip`: images and captions in, two text-image encoders out."""

from __future__ import annotations

import time
from typing import Any

from canvas.clip.spec import TextSpec, TrainClipParams
from canvas.pins.frames import FrameSpec
from canvas.train.spec import Training
from components.artifacts import Captions, Clip, Kept, Pins
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage


@stage(machine="gpus")
def train_clip(
    train_clip: TrainClipParams,
    training: Training,
    text: TextSpec,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    captions: Input[Captions],
    model: Output[Clip],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the two text-image encoders on pins and their captions; score retrieval on held-out pins."""
    import torch

    from canvas.clip.model import T5_FOLDER, TextTower, build_clip, is_text_encoder, save_clip
    from canvas.clip.t5 import link_t5
    from canvas.clip.training import train_clip_model
    from canvas.device import default_device
    from canvas.pins import tables
    from canvas.pins.captions import read_captions
    from canvas.pins.fallbacks import Notes, choose_held_out, choose_sources
    from evaluation.measures.recall.retrieval import score_retrieval

    split_of = tables.read_kept_splits(pins.path, kept.path)
    notes = Notes()
    held_out = choose_held_out(split_of, notes)
    learnt_pins = {pin_id for pin_id, split in split_of.items() if split == "train"}
    sources = choose_sources(captions.path, learnt_pins, train_clip.sources, notes)
    scored_sources = choose_sources(captions.path, held_out, [train_clip.scored_source], notes)
    if text.t5 is not None:
        link_t5(text.t5, model.path / T5_FOLDER)  # refused, if at all, before hours of training
    results: dict[str, Any] = {}
    curve = ["step,encoder,loss"]
    for number, (name, spec) in enumerate((("first", text.first), ("second", text.second))):
        clock = time.perf_counter()
        if train_clip.train is None and (spec.init_from is None or is_text_encoder(spec.init_from)):
            raise ValueError(f"train_clip.train is null: text.{name} needs training, or name its init_from")
        torch.manual_seed(training.seed + number)
        clip = build_clip(spec)
        results[name] = {}
        if train_clip.train is not None:
            learnt = read_captions(captions.path, learnt_pins, sources)
            train = training.resolve(train_clip.train)
            result = train_clip_model(
                clip, name, spec, pins.path, learnt, train_clip.crops, train, checkpoints=scratch.path, log=log.metrics
            )
            curve += [f"{step},{name},{loss:.6g}" for step, loss in result.losses]
            results[name]["images_per_second"] = result.images_per_second
        clip.eval().to(default_device())  # where training left it
        save_clip(clip, spec, model.path / name)
        trained = time.perf_counter()
        texts = read_captions(captions.path, held_out, scored_sources)
        tower = TextTower.from_clip(clip, spec)
        results[name] |= score_retrieval(clip, tower, pins.path, texts, held_out, frames, train_clip.score_batch)
        results[name]["seconds"] = {"train": trained - clock, "score": time.perf_counter() - trained}
    metrics.write(results | notes.to_metrics())
    losses.write("\n".join(curve) + "\n")
