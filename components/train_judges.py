"""Stage `train_judges`: real pins of known scenes in, judges of scenes out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from canvas.pins.frames import FrameSpec
from canvas.ranges import Count, Natural
from components.artifacts import Kept, Pins, SceneJudges, Truth
from lifecycle.declare.stage import Input, Metrics, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJudgesParams:
    pins: Count  # of the train split, half of them without their product
    checked: Count  # held-out ones for their accuracy
    seed: Natural  # of the blur


@stage(machine="cpu")
def train_judges(
    train_judges: TrainJudgesParams,
    frames: FrameSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    judges: Output[SceneJudges],
    metrics: Output[Metrics],
) -> None:
    """Fit the judges of every scene score, on a network that no loss of the generator uses."""
    from evaluation.judges.features import choose_view_side
    from evaluation.judges.judges import fit_judges

    params, clock, tables = train_judges, time.perf_counter(), (pins.path, kept.path, truth.path)
    side = choose_view_side(frames.side)
    fitted = fit_judges(*tables, side=side, images=params.pins, held_out_count=params.checked, seed=params.seed)
    fitted.save(judges.path)
    values = {"scenes": len(fitted.scenes), **fitted.accuracy, "seconds": time.perf_counter() - clock}
    metrics.write(values)
