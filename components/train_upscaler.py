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

    The sheet shows held-out images enlarged by both."""
    import torch

    from canvas.pins.fallbacks import Notes
    from canvas.train.state import eval_mode
    from canvas.upscaler import training as upscaling
    from canvas.upscaler.examples import make_examples, read_large_images
    from canvas.upscaler.model import Upscaler as Network
    from canvas.vae.model import load_vae
    from evaluation.measures.upscaling import load_sharpness_distance, score_upscaler

    outputs = metrics, losses, sheet, model
    if train_upscaler.train is None:
        write_skipped("train_upscaler.train is null, backgrounds are enlarged by a cubic filter", *outputs)
        return
    params, spec, clock, notes = train_upscaler, training.resolve(train_upscaler.train), time.perf_counter(), Notes()
    tables = raw.path, pins.path, kept.path, masks.path
    large = read_large_images(*tables, params, engine.threads, spec.seed, notes)
    if large is None:
        write_skipped(f"no kept pin of the train split has {params.side} pixels a side", *outputs)
        return
    network = load_vae(autoencoder.path).eval()
    learnt, held_out = (make_examples(network, part) for part in large)
    read = time.perf_counter()
    torch.manual_seed(spec.seed)
    enlarger = Network.from_spec(upscaler)
    upscaling.fit_filters(enlarger, learnt)
    objective = upscaling.build_objective(params.loss)
    sample = upscaling.build_sampler(held_out, params.sheet_images, log.image)
    checkpoints = scratch.path / "checkpoints"
    run = upscaling.fit_upscaler(enlarger, learnt, params.crop, objective, spec, checkpoints, log.metrics, sample)
    enlarger.save_pretrained(model.path)
    trained = time.perf_counter()
    with eval_mode(enlarger):
        figures: dict[str, object] = {**score_upscaler(enlarger, held_out, load_sharpness_distance())}
        sheet.write(upscaling.draw_upscaler_sheet(enlarger, held_out, params.sheet_images))
    figures |= {"images_per_second": run.images_per_second, "parameters": enlarger.num_parameters()}
    figures["seconds"] = {"read": read - clock, "train": trained - read, "score": time.perf_counter() - trained}
    metrics.write(figures | notes.to_metrics())
    losses.write(run.losses)
