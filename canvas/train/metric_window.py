"""Metrics of the steps since the last log, left on their device so that no step waits to be read."""

from __future__ import annotations

import math

import torch

from canvas.train.distributed import World

FINITE_METRICS = ("loss", "grad_norm")


class MetricWindow:
    """Scalars by name and step; several of one step (accumulated passes) are averaged."""

    def __init__(self) -> None:
        self._values: dict[str, list[torch.Tensor]] = {}
        self._steps: dict[str, list[int]] = {}

    def add(self, step: int, name: str, value: torch.Tensor) -> None:
        self._values.setdefault(name, []).append(value.detach().float())
        self._steps.setdefault(name, []).append(step)

    def read(self, world: World) -> tuple[dict[str, float], tuple[int, str, float] | None]:
        """Means over steps and ranks, and the first (step, name, value) of a loss or gradient norm that is not finite.

        Empties the window. Every rank must have added the same names equally often.
        """
        names = sorted(self._values)
        flat = world.reduce_mean(torch.stack([value for name in names for value in self._values[name]])).tolist()
        rows = iter(flat)
        series = {name: [(step, next(rows)) for step in self._steps[name]] for name in names}
        self._values, self._steps = {}, {}
        broken = [
            (step, name, value)
            for name in names
            if name.endswith(FINITE_METRICS)
            for step, value in series[name]
            if not math.isfinite(value)
        ]
        means = {name: math.fsum(value for _, value in pairs) / len(pairs) for name, pairs in series.items()}
        # the loss of a step comes before its gradient, and is the better name for what broke
        return means, min(broken, key=lambda row: (row[0], not row[1].endswith("loss")), default=None)
