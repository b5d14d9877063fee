"""What a training run is: every number the loop needs, checked once, before anything is loaded.

Params hold a `Train` for each stage and one `Training` for all; `Training.resolve` makes the loop's `TrainSpec`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import TypedDict

from canvas.ranges import Count, Natural, NonNegative, Positive

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine"]
Parallel = Literal["none", "ddp", "fsdp"]
Optimizer = Literal["adamw", "adamw8bit", "muon"]

LogEvery = Annotated[int, Ge(1), Le(100_000)]

MAX_RELATIVE_LENGTH = 12**-0.5
"""Relative standard deviation of the plain average over the whole run: the longest power-function average."""

CHANGEABLE_ON_RESUME = ("parallel", "compile", "gradient_checkpointing", "sample_every", "checkpoint_every")
"""May change when a run is resumed: they change how steps are computed or what is written, not what is trained."""

ALWAYS_SUPPORTED = {"accumulate": (1,), "compile": (False,), "parallel": ("none", "ddp")}
"""Values that every stage supports, of the settings that some cannot use: see `TrainSpec.refuse`."""


class Override(TypedDict, total=False):
    """Shared values that differ for one training: any of these keys of `Training`."""

    accumulate: Count
    optimizer: Optimizer
    schedule: Schedule
    weight_decay: NonNegative
    clip_norm: Positive | None
    precision: Precision
    channels_last: bool
    gradient_checkpointing: bool
    compile: bool
    parallel: Parallel
    checkpoints: Count
    samples: Count
    log_every: LogEvery


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """What each training has values of its own for."""

    steps: Count  # optimizer steps at effort 1
    batch_size: Count  # samples an optimizer step sees, over all ranks and accumulation
    learning_rate: NonNegative  # peak
    warmup_steps: Natural  # at effort 1; linear, from learning_rate / warmup_steps
    override: Override  # values of section training that differ here

    def __post_init__(self) -> None:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}: it must be at most the {self.steps} steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """Settings of the loop that trainings share."""

    accumulate: Count  # forward-backward passes an optimizer step is cut into
    optimizer: Optimizer  # adamw8bit: moments in a quarter of the memory; muon: of matrices of blocks, adamw beside
    schedule: Schedule  # after the warm-up; cosine ends at 0 after the last step
    weight_decay: NonNegative  # on matrices and kernels; none on biases, norms and other vectors
    clip_norm: Positive | None  # global gradient norm; null: no clipping
    precision: Precision  # of autocast; auto: bf16 where the device multiplies it; parameters stay as they are
    channels_last: bool  # memory format of 4-D tensors
    gradient_checkpointing: bool  # blocks of a denoiser run again in the backward pass: less memory, a third more time
    compile: bool  # torch.compile of the blocks that a model repeats, or of its whole forward
    parallel: Parallel  # ddp and fsdp: processes share a step's samples; fsdp: its weights, too
    seed: Natural  # of first weights, batches and noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Training(LoopSettings):
    """What all trainings share."""

    effort: Annotated[float, Gt(0), Le(1000)]  # scales the steps and the warm-up of every training
    checkpoints: Count  # in a run, evenly spread, the last at its end
    samples: Count  # images that are shown, likewise
    log_every: LogEvery  # steps, at most: the loss is logged at every checkpoint and sample, too

    def scale(self, step: int) -> int:
        """Return the step at this effort that is `step` at effort 1."""
        return round(step * self.effort)

    def resolve(self, train: Train, ema: tuple[float, ...] = ()) -> TrainSpec:
        """Return the spec of one training; `ema` are the averages of the weights that it tracks."""
        settings = replace(self, **train.override)
        marks = math.lcm(settings.checkpoints, settings.samples)
        if train.steps % marks:
            raise ValueError(
                f"steps is {train.steps}: it must be a multiple of {marks}, for {settings.checkpoints} checkpoints and "
                f"{settings.samples} samples at even distances"
            )
        steps = max(1, round(train.steps * self.effort / marks)) * marks
        between = math.gcd(steps // settings.checkpoints, steps // settings.samples)
        return TrainSpec(
            **{field.name: getattr(settings, field.name) for field in fields(LoopSettings)},
            steps=steps,
            batch_size=train.batch_size,
            learning_rate=train.learning_rate,
            warmup_steps=min(self.scale(train.warmup_steps), steps),
            ema=ema,
            checkpoint_every=steps // settings.checkpoints,
            log_every=next(every for every in range(min(settings.log_every, between), 0, -1) if between % every == 0),
            sample_every=steps // settings.samples,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableParams:
    """What the params of every stage that trains have."""

    train: Train | None  # null: nothing is trained, the init_from model is used as it is

    refused: ClassVar[Mapping[str, str]] = {}
    """Setting of `ALWAYS_SUPPORTED` that the stage cannot use -> why, and the fix."""

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if the training cannot run as the section `training` says."""
        if self.train is not None:
            params["training"].resolve(self.train).refuse(**self.refused)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec(LoopSettings):
    """One run of the loop, as `Training.resolve` makes it of params, whose ranges are checked where they are read."""

    steps: int  # optimizer steps
    batch_size: int  # samples an optimizer step sees, over all ranks and accumulation
    learning_rate: float  # peak
    warmup_steps: int  # linear, from learning_rate / warmup_steps
    ema: tuple[float, ...]  # relative lengths (sigma_rel of EDM2) tracked for post-hoc averages; two do, [] is none
    checkpoint_every: int  # a divisor of steps
    log_every: int  # a divisor of checkpoint_every and of sample_every
    sample_every: int

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}: it must be a multiple of accumulate, which is {self.accumulate}"
            )
        if self.optimizer != "adamw" and self.parallel == "fsdp":
            raise ValueError(
                f'optimizer is "{self.optimizer}", whose state cannot be sharded: set parallel to ddp or none'
            )
        if len(set(self.ema)) != len(self.ema):
            raise ValueError(f"ema is {list(self.ema)}: give different lengths between 0 and 0.288, as 0.05, 0.1")

    def refuse(self, **fixes: str) -> None:
        """Raise `ValueError` if a setting named in `fixes` (-> why, and the fix) is none of `ALWAYS_SUPPORTED`."""
        for name, fix in fixes.items():
            if (value := getattr(self, name)) not in ALWAYS_SUPPORTED[name]:
                raise ValueError(f"{name} is {json.dumps(value)}: {fix} in train.override")

    def get_identity(self) -> dict[str, Any]:
        """Return the values that decide what is trained: equal for runs that may continue each other."""
        values = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in values.items() if name not in CHANGEABLE_ON_RESUME}


def build_plain_spec(*, steps: int, batch_size: int, learning_rate: float, **changes: Any) -> TrainSpec:
    """Return the spec of a training that no params describe: one process, float32, one checkpoint and log, at its end.

    Args:
        steps: Optimizer steps.
        batch_size: Samples that a step sees.
        learning_rate: Peak.
        changes: Other values of `TrainSpec`, by name.
    """
    values: dict[str, Any] = {
        "accumulate": 1,
        "optimizer": "adamw",
        "schedule": "cosine",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "precision": "fp32",
        "channels_last": False,
        "gradient_checkpointing": False,
        "compile": False,
        "parallel": "none",
        "seed": 0,
        "warmup_steps": 0,
        "ema": (),
        "checkpoint_every": steps,
        "log_every": steps,
        "sample_every": steps,
    }
    return TrainSpec(steps=steps, batch_size=batch_size, learning_rate=learning_rate, **values | changes)
