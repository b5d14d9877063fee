"""Stage `train_judges`: real pins whose scene is known in, judges that tell scenes apart out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from canvas.pins.frames import FrameSpec
from canvas.pins.tables import SPLITS
from canvas.ranges import Count
from components.artifacts import Kept, Pins, SceneJudges, Truth
from lifecycle.declare.stage import Input, Metrics, Output, stage

HELD_OUT = tuple(split for split in SPLITS if split != "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJudgesParams:
    pins: Count  # of the train split that the judges learn from, half of them without their product
    checked: Count  # held-out ones that they are checked on
    seed: int  # of the blur


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
    """Learn to tell scenes apart on a network that no loss of the generator uses: the judges of every scene score."""
    from evaluation.judges.features import choose_view_side
    from evaluation.judges.judges import fit_judges

    params, clock = train_judges, time.perf_counter()
    found = fit_judges(
        pins.path,
        kept.path,
        truth.path,
        side=choose_view_side(frames.side),
        pictures=params.pins,
        checked=params.checked,
        held_out=HELD_OUT,
        seed=params.seed,
    )
    found.save(judges.path)
    figures = {"scenes": len(found.scenes), **found.accuracy, "seconds": time.perf_counter() - clock}
    metrics.write(figures)
