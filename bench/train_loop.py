"""What the training loop costs beside a bare torch loop: same model, batch, optimizer and clipping, one process.

    OMP_NUM_THREADS=2 python -m bench.train_loop

The two take turns, so that a busy machine slows both; figures are medians. It prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from canvas.train.data import Batch, TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import fit
from canvas.train.spec import TrainSpec

BATCH, CHANNELS, SIDE = 48, 16, 8
ROUNDS, STEPS = 5, 30


class Residual(nn.Module):
    """[N, width, 8, 8] -> the same."""

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


def make_denoiser(width: int, depth: int) -> nn.Module:
    torch.manual_seed(0)
    ends = nn.Conv2d(CHANNELS, width, 3, padding=1), nn.Conv2d(width, CHANNELS, 3, padding=1)
    return nn.Sequential(ends[0], *(Residual(width) for _ in range(depth)), ends[1])


def make_batches() -> TensorBatches:
    latents = torch.randn(1024, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return TensorBatches({"pin_id": [str(row) for row in range(1024)], "latents": latents}, BATCH, 0)


def compute_flow_loss(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    latents = batch["latents"]
    assert isinstance(latents, torch.Tensor)
    noise, time_of = draws.normal(*latents.shape), draws.uniform(len(latents)).view(-1, 1, 1, 1)
    return (model(latents.lerp(noise, time_of)) - (noise - latents)).square().mean(), {}


def make_train_spec(ema: tuple[float, ...]) -> TrainSpec:
    return TrainSpec(
        steps=STEPS,
        batch_size=BATCH,
        accumulate=1,
        learning_rate=1e-4,
        warmup_steps=0,
        schedule="constant",
        weight_decay=0.01,
        clip_norm=1.0,
        precision="fp32",
        channels_last=False,
        compile=False,
        parallel="none",
        ema=ema,
        checkpoint_every=STEPS,
        log_every=10,
        sample_every=STEPS,
        seed=0,
    )


def measure_loop(model: nn.Module, batches: TensorBatches, ema: tuple[float, ...]) -> float:
    """Seconds a step of `fit`, the median of its windows; its checkpoint is not in it."""
    with tempfile.TemporaryDirectory() as place:
        fitted = fit(
            model,
            compute_flow_loss,
            batches,
            make_train_spec(ema),
            checkpoints=Path(place),
            log=lambda metrics, step: None,
        )
    return BATCH / fitted.images_per_second


def measure_bare_loop(model: nn.Module, batches: TensorBatches) -> float:
    """Seconds a step of what one writes by hand."""
    latents = batches.columns["latents"]
    assert isinstance(latents, torch.Tensor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    windows = []
    for _ in range(STEPS // 10):
        start = time.perf_counter()
        for _ in range(10):
            x = latents[torch.randint(len(latents), (BATCH,))]
            noise, time_of = torch.randn_like(x), torch.rand(BATCH, 1, 1, 1)
            loss = (model(x.lerp(noise, time_of)) - (noise - x)).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        windows.append((time.perf_counter() - start) / 10)
    return statistics.median(windows)


def measure_draws() -> float:
    """Seconds for normal [64, 16, 8, 8] and uniform [64], each sample from its own generator."""
    start = time.perf_counter()
    draws = Draws(0, 0, 0, 64)
    draws.normal(64, 16, 8, 8)
    draws.uniform(64)
    return time.perf_counter() - start


def measure_medians(width: int, depth: int) -> dict[str, float]:
    batches = make_batches()
    ways: dict[str, Callable[[nn.Module], float]] = {
        "bare_ms": lambda model: measure_bare_loop(model, batches),
        "loop_ms": lambda model: measure_loop(model, batches, ()),
        "loop_with_two_averages_ms": lambda model: measure_loop(model, batches, (0.05, 0.1)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(1e3 * way(make_denoiser(width, depth)))
    figures = {name: statistics.median(values) for name, values in taken.items()}
    parameters = sum(parameter.numel() for parameter in make_denoiser(width, depth).parameters())
    return {
        "parameters": parameters,
        **{name: round(value, 3) for name, value in figures.items()},
        "ratio": round(figures["loop_ms"] / figures["bare_ms"], 4),
        "ratio_with_two_averages": round(figures["loop_with_two_averages_ms"] / figures["bare_ms"], 4),
    }


def main() -> None:
    measure_draws()
    figures = {
        "threads": torch.get_num_threads(),
        "draws_64_ms": round(1e3 * statistics.median(measure_draws() for _ in range(50)), 3),
        "small": measure_medians(width=16, depth=1),
        "denoiser": measure_medians(width=96, depth=4),
    }
    json.dump(figures, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
