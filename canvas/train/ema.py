"""Averages of the weights whose length is chosen after training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2, arXiv 2312.02696),
section 3 and appendix C: training tracks a few power-function averages and keeps snapshots of them; afterwards any
other length is the least-squares combination of the snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from canvas.train.checkpoint import get_step_directory, list_steps
from canvas.train.distributed import get_local_tensor, match_layout
from canvas.train.spec import MAX_RELATIVE_LENGTH


def compute_exponent(length: float) -> float:
    """Return gamma of the power function tau^gamma of relative standard deviation `length` (eq. 126, algorithm 2)."""
    if not 0 < length < MAX_RELATIVE_LENGTH:
        raise ValueError(f"a relative length of {length} is out of range: it must be between 0 and 0.288")
    inverse = length**-2.0
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def compute_overlaps(
    time_a: np.ndarray, gamma_a: np.ndarray, time_b: np.ndarray | float, gamma_b: np.ndarray | float
) -> np.ndarray:
    """Compute inner products of profiles (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t] (appendix C.2, alg. 3)."""
    earlier = np.minimum(time_a, time_b)
    shares = (earlier / time_a) ** gamma_a * (earlier / time_b) ** gamma_b
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * shares / np.maximum(time_a, time_b)


def solve_weights(snapshots: Sequence[tuple[int, float]], step: int, length: float) -> np.ndarray:
    """Return the weight of each snapshot (step, length) in the average of `length` at `step`.

    Least squares between the profiles, as in the paper, but under the constraint that the weights sum to 1: from the
    few snapshots of a short run the plain solution scales the weights by some per cent.
    """
    times = np.array([time for time, _ in snapshots], dtype=np.float64) / step
    gammas = np.array([compute_exponent(width) for _, width in snapshots])
    count = len(snapshots)
    system = np.ones((count + 1, count + 1))  # with a Lagrange multiplier in the last row and column
    system[:count, :count] = compute_overlaps(times[:, None], gammas[:, None], times[None, :], gammas[None, :])
    system[count, count] = 0
    target = np.append(compute_overlaps(times, gammas, 1.0, compute_exponent(length)), 1.0)
    weights: np.ndarray = np.linalg.lstsq(system, target, rcond=None)[0]
    return weights[:count]


class Averages:
    """Running power-function averages of `parameters`, one a length; under FSDP each rank averages its shard."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], lengths: Iterable[float]) -> None:
        self.parameters = parameters
        self.tensors = {
            length: {name: parameter.detach().clone() for name, parameter in parameters.items()} for length in lengths
        }
        self._sources = [get_local_tensor(parameter) for parameter in parameters.values()]
        self._targets = {
            length: [get_local_tensor(tensor) for tensor in tensors.values()]
            for length, tensors in self.tensors.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (from 1), by beta = (1 - 1/step)^(gamma + 1) (eq. 127)."""
        for length, targets in self._targets.items():
            beta = (1 - 1 / step) ** (compute_exponent(length) + 1)
            torch._foreach_lerp_(targets, self._sources, 1 - beta)

    def load(self, length: float, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from full `tensors` of a snapshot."""
        for name, average in self.tensors[length].items():
            get_local_tensor(average).copy_(get_local_tensor(match_layout(average, tensors[name])))


class Snapshots:
    """The averages kept in `directory`: step-<step>/<length>.safetensors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list_snapshots(self) -> list[tuple[int, float]]:
        """Return (step, length) of each snapshot, by step."""
        return [
            (step, float(path.stem))
            for step in list_steps(self.directory)
            for path in sorted(get_step_directory(self.directory, step).glob("*.safetensors"))
        ]

    def average(self, length: float, step: int | None = None) -> dict[str, torch.Tensor]:
        """Return averages of relative `length` at `step`, by default the last snapshot's: full float tensors, CPU."""
        index = self.list_snapshots()
        step = index[-1][0] if step is None else step
        index = [entry for entry in index if entry[0] <= step]
        total: dict[str, torch.Tensor] = {}
        for (time, width), weight in zip(index, solve_weights(index, step, length), strict=True):
            with safe_open(get_step_directory(self.directory, time) / f"{width}.safetensors", "pt") as file:
                for name in file.keys():  # noqa: SIM118, safe_open is no mapping
                    tensor = file.get_tensor(name).double() * weight
                    total[name] = total[name] + tensor if name in total else tensor
        return {name: tensor.float() for name, tensor in total.items()}


def load_average(model: nn.Module, average: Mapping[str, torch.Tensor]) -> None:
    """Put averaged weights into `model`; frozen parameters and buffers stay."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in average.items():
            parameters[name].copy_(match_layout(parameters[name], tensor))


def load_best(
    model: nn.Module, snapshots: Snapshots, lengths: Iterable[float], score: Callable[[nn.Module], float]
) -> dict[float, float]:
    """Leave in `model` the average, of `lengths`, whose held-out `score` is lowest; return all scores by length."""
    scores = {}
    for length in lengths:
        load_average(model, snapshots.average(length))
        scores[length] = score(model)
    load_average(model, snapshots.average(min(scores, key=scores.__getitem__)))
    return scores
