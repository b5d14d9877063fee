"""Stage `train_light`: pins whose light is known in, networks that predict a product's light and shadow out."""

from __future__ import annotations

import time
from typing import Any

from canvas.light.spec import TrainLightParams
from canvas.train.spec import Training
from components.artifacts import Kept, Light, Pins, Truth
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpu", skips=True)
def train_light(
    train_light: TrainLightParams,
    training: Training,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    model: Output[Light],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the networks of mode soft and of shadows on the known light of rendered pins; score both on held-out pins.

    The sheet shows held-out products before their scenes under predicted and true gains, then with such shadows."""
    import torch

    from canvas.device import default_device
    from canvas.light.model import build_light
    from canvas.light.shadow.model import FOLDER
    from canvas.light.shadow.training import fit_shadow, iterate_shadowed_pins, stack_shadows
    from canvas.light.training import LightObjective, iterate_lit_pins, stack_pins
    from canvas.pins import images, tables
    from canvas.pins.image_batches import select_evenly
    from canvas.train.data import TensorBatches
    from canvas.train.loop import fit
    from evaluation.measures.light import compute_light_metrics, draw_light_sheet, score_light
    from evaluation.measures.shadow import measure_shadows

    if train_light.train is None:
        write_skipped("train_light.train is null, the generator has no mode soft", metrics, losses, sheet, model)
        return
    params, spec, clock = train_light, training.resolve(train_light.train), time.perf_counter()
    train_ids, held_out = tables.read_train_and_held_out(pins.path, kept.path)
    train_pins = stack_pins(iterate_lit_pins(pins.path, truth.path, train_ids), params.network.image_size)
    held_out_pins = stack_pins(iterate_lit_pins(pins.path, truth.path, held_out), params.network.image_size)
    if not (train_pins["pin_id"] and held_out_pins["pin_id"]):
        reason = "truth knows the light of no training pin or of no held-out one, so the generator has no mode soft"
        write_skipped(reason, metrics, losses, sheet, model)
        return
    torch.manual_seed(spec.seed)
    network = build_light(params.network)
    batches = TensorBatches(train_pins, spec.batch_size, spec.seed)
    objective, checkpoints = LightObjective(params.colour), scratch.path / "checkpoints"
    result = fit(network, objective, batches, spec, checkpoints=checkpoints, log=log.metrics)
    network.eval().save_pretrained(model.path)
    network.to(default_device())
    trained = time.perf_counter()
    scores = score_light(network, held_out_pins, train_pins["gains"].mean(0).numpy(), params.score_batch)
    figures: dict[str, Any] = compute_light_metrics(scores, held_out)
    chosen = select_evenly(held_out_pins["pin_id"], params.sheet_pins)
    sheets = [draw_light_sheet(network, iterate_lit_pins(pins.path, truth.path, chosen))]
    seconds = {"train": trained - clock, "score": time.perf_counter() - trained}
    if params.shadow is not None:
        shadowed = stack_shadows(iterate_shadowed_pins(pins.path, truth.path, train_ids), params.shadow.image_size)
        shadow = fit_shadow(params.shadow, shadowed, params.colour, spec, scratch.path / FOLDER, log.metrics)
        shadow.save_pretrained(model.path / FOLDER)
        measured = measure_shadows(shadow.to(default_device()), pins.path, truth.path, train_ids, held_out, chosen)
        figures["shadow"], sheets = measured.figures, [*sheets, measured.sheet]
        seconds["shadow"] = time.perf_counter() - trained - seconds["score"]
    sheet.write(images.encode_png(images.stack_sheets(sheets)))
    size = {"train_pins": len(train_pins["pin_id"]), "parameters": network.num_parameters()}
    metrics.write({**figures, **size, "images_per_second": result.images_per_second, "seconds": seconds})
    losses.write(result.losses)
