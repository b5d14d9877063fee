"""Stage `train_upscaler`: images at full size in, a network that enlarges generated backgrounds out."""

from __future__ import annotations

import time

from canvas.pins.engine import Engine
from canvas.train.spec import Training
from canvas.upscaler.spec import TrainUpscalerParams, UpscalerSpec
from canvas.vae.spec import VaeSpec
from components.artifacts import Kept, Masks, Pins, RawData, Upscaler, Vae
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpus", skips=True)
def train_upscaler(
    train_upscaler: TrainUpscalerParams,
    training: Training,
    upscaler: UpscalerSpec,
    vae: VaeSpec,
    engine: Engine,
    raw: Input[RawData],
    pins: Input[Pins],
    kept: Input[Kept],
    masks: Input[Masks],
    autoencoder: Input[Vae],
    model: Output[Upscaler],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the network that enlarges backgrounds round a full-size product; score it beside a cubic filter.

    Where train is null, that of init_from passes through and is scored. The sheet shows held-out images by both."""
    import torch

    from canvas.device import default_device
    from canvas.pins.fallbacks import Notes
    from canvas.train.state import eval_mode
    from canvas.upscaler import training as upscaling
    from canvas.upscaler.examples import make_examples, read_large_images
    from canvas.upscaler.loading import load_initial_upscaler, save_upscaler
    from canvas.vae.model import load_vae
    from evaluation.measures.upscaling import load_sharpness_distance, score_upscaler

    params, clock, notes, run = train_upscaler, time.perf_counter(), Notes(), None
    outputs = metrics, losses, sheet
    if params.train is None and params.init_from is None:
        write_skipped("train_upscaler.train is null, backgrounds are enlarged by a cubic filter", *outputs, model)
        return
    enlarger, tables = load_initial_upscaler(upscaler, params), (raw.path, pins.path, kept.path, masks.path)
    large = read_large_images(*tables, params, engine.threads, training.seed, notes)
    if large is None:
        if enlarger is not None:
            save_upscaler(enlarger, params.init_from, model.path)
        reason = f"no kept pin of the train split has {params.side} pixels a side"
        write_skipped(reason, *outputs, model if enlarger is None else None)
        return
    network = load_vae(autoencoder.path).eval()
    learnt, held_out = (make_examples(network, part) for part in large)
    read = time.perf_counter()
    if enlarger is None:
        torch.manual_seed(training.seed)
        enlarger = upscaling.build_fitted_upscaler(upscaler, learnt)
    if params.train is not None:
        objective, spec = upscaling.build_objective(params.loss, upscaler.kind), training.resolve(params.train)
        sample, place = upscaling.build_sampler(held_out, params.sheet_images, log.image), scratch.path / "checkpoints"
        run = upscaling.fit_upscaler(enlarger, learnt, params.crop, objective, spec, place, log.metrics, sample)
    save_upscaler(enlarger, params.init_from, model.path)
    trained = time.perf_counter()
    with eval_mode(enlarger.to(default_device())):
        figures: dict[str, object] = {**score_upscaler(enlarger, held_out, load_sharpness_distance())}
        sheet.write(upscaling.draw_upscaler_sheet(enlarger, held_out, params.sheet_images))
    figures |= {"parameters": enlarger.num_parameters()} | ({"images_per_second": run.images_per_second} if run else {})
    figures["seconds"] = {"read": read - clock, "train": trained - read, "score": time.perf_counter() - trained}
    metrics.write(figures | notes.to_metrics())
    losses.write(run.losses if run else [])
