"""Stage `train_text`: text-image encoders and the catalogue in, the text encoders that the denoiser reads out."""

from __future__ import annotations

import time
from typing import Any

from canvas.clip.spec import TextSpec
from canvas.clip.tuning.spec import TrainTextParams
from canvas.pins.frames import FrameSpec
from canvas.train.spec import Training
from components.artifacts import Captions, Clip, Kept, Pins, RawData, TextEncoders, Truth
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, StepLog, stage


@stage(machine="gpus", skips=True)
def train_text(
    train_text: TrainTextParams,
    training: Training,
    text: TextSpec,
    frames: FrameSpec,
    raw: Input[RawData],
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    captions: Input[Captions],
    clip: Input[Clip],
    model: Output[TextEncoders],
    metrics: Output[Metrics],
    losses: Output[Losses],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Tune text towers on the catalogue's images and on pins that share boards; score retrieval and text states.

    Where train is null, the encoders of train_clip pass through, or those of init_from."""
    from canvas.clip.model import load_clip, save_clip
    from canvas.clip.tuning.data import TuningData
    from canvas.clip.tuning.towers import check_sizes, link_encoders, read_layer_weights, write_tuning
    from canvas.clip.tuning.training import tune_text_tower
    from canvas.hub import fetch_snapshot
    from canvas.pins.fallbacks import Notes
    from canvas.sources.board_saves import read_board_saves
    from canvas.uve.training import read_labels
    from evaluation.measures.recall.retrieval import score_widths
    from evaluation.measures.recall.text_probe import score_text_states

    params, notes, clock = train_text, Notes(), time.perf_counter()
    source = clip.path if params.init_from is None else fetch_snapshot(params.init_from).folder
    counts = link_encoders(source, model.path, without=params.towers if params.train else ())
    check_sizes(source, text)
    if params.train is None:
        given = "the encoders of train_clip pass" if params.init_from is None else "train_text.init_from passes"
        write_skipped(f"train_text.train is null, {given} through", metrics, losses, figures=counts)
        return
    saves = params.neighbours.saves if params.neighbours else None
    edges = read_board_saves(saves, raw.path, notes) if saves else []
    data = TuningData.read(pins.path, kept.path, captions.path, params, edges, notes)
    labels = read_labels(pins.path, truth.path, captions.path, data.prompts.keys())
    probe = text, data.prompts, labels, params.score_batch
    pairs = pins.path, data.scored, frames, params.score_batch
    results: dict[str, Any] = {"probe": {"frozen": score_text_states(source, *probe)}}
    curve = ["step,encoder,loss"]
    for name in params.towers:
        spec, encoder = getattr(text, name), load_clip(source / name)
        widths = params.compute_widths(spec.embed_dim)
        results[name] = {"frozen": score_widths(encoder, spec, widths, *pairs)}
        train, mix = training.resolve(params.train), read_layer_weights(source / name)
        work = scratch.path / name
        run = tune_text_tower(
            encoder, name, spec, params, data, train, layer_weights=mix, checkpoints=work, log=log.metrics
        )
        save_clip(encoder, spec, model.path / name)
        write_tuning(model.path / name, widths, run.layer_weights)
        results[name] |= {"tuned": score_widths(encoder, spec, widths, *pairs), **run.compute_metrics()}
        curve += [f"{step},{name},{loss:.6g}" for step, loss in run.result.losses]
    results["probe"]["tuned"] = score_text_states(model.path, *probe)
    metrics.write(results | notes.to_metrics() | {"seconds": {"all": time.perf_counter() - clock}})
    losses.write("\n".join(curve) + "\n")
