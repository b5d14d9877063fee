"""What a training run is: every number the loop needs, checked once, before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]

MAX_RELATIVE_LENGTH = 12**-0.5
"""Relative standard deviation of the plain average over the whole run: the longest power-function average."""

NOT_IN_THE_MATHS = ("parallel", "compile", "sample_every", "checkpoint_every")
"""May change when a run is resumed: they change how steps are computed or what is written, not what is trained."""

UNCHOSEN = "no average of the weights is chosen here, set it to []"
"""Why a stage refuses `ema`."""

HARMLESS = {"accumulate": (1,), "compile": (False,), "parallel": ("none", "ddp"), "ema": ((),)}
"""Values that every stage heeds, of the settings that some cannot: see `TrainSpec.refuse`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """One run of the loop. `ValueError` names the offending values."""

    steps: int  # optimizer steps
    batch_size: int  # samples an optimizer step sees, over all ranks and accumulation
    accumulate: int  # forward-backward passes an optimizer step is cut into
    learning_rate: float  # peak
    warmup_steps: int  # linear, from learning_rate / warmup_steps
    schedule: Literal["constant", "cosine"]  # after the warm-up; cosine ends at 0 after the last step
    weight_decay: float  # on matrices and kernels; none on biases, norms and other vectors
    clip_norm: float | None  # global gradient norm; null: no clipping
    precision: Precision  # of autocast; auto: bf16 where the device multiplies it; parameters stay as they are
    channels_last: bool  # memory format of 4-D tensors
    compile: bool  # torch.compile of the model's forward
    parallel: Literal["none", "ddp", "fsdp"]
    ema: tuple[float, ...]  # relative lengths (sigma_rel of EDM2) tracked for post-hoc averages; two do, [] is none
    checkpoint_every: int
    log_every: int
    sample_every: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "log_every", "sample_every"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "seed"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} is {value}: it must not be negative")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm is {self.clip_norm}: it must be positive, or null for no clipping")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than the {self.steps} steps of the run")
        for whole, part in (
            ("batch_size", "accumulate"),
            ("steps", "checkpoint_every"),
            ("checkpoint_every", "log_every"),
            ("sample_every", "log_every"),
        ):
            if getattr(self, whole) % getattr(self, part):
                values = getattr(self, whole), getattr(self, part)
                raise ValueError(f"{whole} is {values[0]}: it must be a multiple of {part}, which is {values[1]}")
        if len(set(self.ema)) != len(self.ema) or not all(0 < length < MAX_RELATIVE_LENGTH for length in self.ema):
            raise ValueError(f"ema is {list(self.ema)}: give different lengths between 0 and 0.288, as 0.05, 0.1")

    def refuse(self, section: str, **fixes: str) -> None:
        """`ValueError` if a setting of `HARMLESS` named in `fixes` has another value, which the stage that reads
        `section` cannot heed; the text says why, and the fix."""
        for name, fix in fixes.items():
            if (value := getattr(self, name)) not in HARMLESS[name]:
                shown = list(value) if isinstance(value, tuple) else value
                raise ValueError(f"{section}.{name} is {shown}: {fix}")

    def maths(self) -> dict[str, Any]:
        """The values that decide what is trained: equal for runs that may continue each other."""
        values = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in values.items() if name not in NOT_IN_THE_MATHS}
