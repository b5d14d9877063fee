"""What the training loop costs beside a bare torch loop: same model, batch, optimizer and clipping, one process.

    OMP_NUM_THREADS=2 python -m bench.train_loop

The two take turns, so that a busy machine slows both; figures are medians. It prints JSON.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn

from bench.measurement import measure_in_turns, measure_seconds
from bench.models import read_train_spec
from canvas.train.data import TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import fit

BATCH, CHANNELS, SIDE = 48, 16, 8
ROUNDS, STEPS = 5, 30


class Residual(nn.Module):
    """A residual block on [N, width, 8, 8]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def build_network(width: int, depth: int) -> nn.Module:
    torch.manual_seed(0)
    first, last = nn.Conv2d(CHANNELS, width, 3, padding=1), nn.Conv2d(width, CHANNELS, 3, padding=1)
    return nn.Sequential(first, *(Residual(width) for _ in range(depth)), last)


class LatentBatch(TypedDict):
    pin_id: list[str]
    latents: torch.Tensor  # [N, CHANNELS, SIDE, SIDE]


def compute_flow_loss(
    model: nn.Module, batch: LatentBatch, draws: Draws
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    latents = batch["latents"]
    noise, times = draws.normal(*latents.shape), draws.uniform(len(latents)).view(-1, 1, 1, 1)
    return (model(latents.lerp(noise, times)) - (noise - latents)).square().mean(), {}


def measure_loop(model: nn.Module, latents: torch.Tensor, ema: tuple[float, ...]) -> float:
    """Return the milliseconds of a step of `fit`, the median of its windows, without its checkpoint."""
    spec = replace(
        read_train_spec(STEPS), batch_size=BATCH, learning_rate=1e-4, precision="fp32", log_every=10, ema=ema
    )
    ids = [str(row) for row in range(len(latents))]
    batches: TensorBatches[LatentBatch] = TensorBatches({"pin_id": ids, "latents": latents}, BATCH, 0)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(model, compute_flow_loss, batches, spec, checkpoints=Path(folder), log=lambda metrics, step: None)
    return 1e3 * BATCH / result.images_per_second


def measure_bare_loop(model: nn.Module, latents: torch.Tensor) -> float:
    """Return the milliseconds of a step of a loop written by hand."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        for _ in range(10):
            x = latents[torch.randint(len(latents), (BATCH,))]
            noise, times = torch.randn_like(x), torch.rand(BATCH, 1, 1, 1)
            loss = (model(x.lerp(noise, times)) - (noise - x)).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return 1e3 * statistics.median(measure_seconds(run) / 10 for _ in range(STEPS // 10))


def measure_draws() -> float:
    """Return the milliseconds of normal [64, 16, 8, 8] and uniform [64], each sample from its own generator."""

    def run() -> None:
        draws = Draws(0, 0, 0, 64)
        draws.normal(64, 16, 8, 8)
        draws.uniform(64)

    return 1e3 * measure_seconds(run)


def measure_medians(width: int, depth: int) -> dict[str, float]:
    latents = torch.randn(1024, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    milliseconds = measure_in_turns(
        {
            "bare_ms": lambda: measure_bare_loop(build_network(width, depth), latents),
            "loop_ms": lambda: measure_loop(build_network(width, depth), latents, ()),
            "loop_with_two_averages_ms": lambda: measure_loop(build_network(width, depth), latents, (0.05, 0.1)),
        },
        ROUNDS,
    )
    figures = {name: statistics.median(values) for name, values in milliseconds.items()}
    return {
        "parameters": sum(parameter.numel() for parameter in build_network(width, depth).parameters()),
        **{name: round(value, 3) for name, value in figures.items()},
        "ratio": round(figures["loop_ms"] / figures["bare_ms"], 4),
        "ratio_with_two_averages": round(figures["loop_with_two_averages_ms"] / figures["bare_ms"], 4),
    }


def main() -> None:
    figures = {
        "threads": torch.get_num_threads(),
        "draws_64_ms": round(statistics.median(measure_in_turns({"draws": measure_draws}, 50)["draws"]), 3),
        "small": measure_medians(width=16, depth=1),
        "denoiser": measure_medians(width=96, depth=4),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
