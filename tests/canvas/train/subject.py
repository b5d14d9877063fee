"""A small real model to train; `-m tests.canvas.train.subject JOBS` trains it in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canvas.train.data import Batch, TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import TrainResult, fit
from canvas.train.player import Adversary
from canvas.train.spec import TrainSpec, build_plain_spec

ROWS = 40

SPEC = build_plain_spec(
    steps=12,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    checkpoint_every=3,
    log_every=1,
    sample_every=6,
    seed=5,
)


class Denoiser(nn.Module):
    """Predicts a clean image [N, 3, 8, 8] from a noisy one; blocks in a ModuleList, norms, biases and a buffer."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(2)
        )
        self.head = nn.Conv2d(8, 3, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        hidden = self.stem(noisy)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


class Critic(nn.Module):
    """A score [N] for an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.SiLU(), nn.Conv2d(8, 1, 2))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.layers(picture).flatten()


def denoiser(dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(dropout)


def batches(spec: TrainSpec = SPEC) -> TensorBatches:
    pixels = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    columns: dict[str, torch.Tensor | list[str]] = {"pin_id": [f"pin{row}" for row in range(ROWS)], "pixels": pixels}
    return TensorBatches(columns, spec.batch_size, spec.seed)


def denoising(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    pixels = batch["pixels"]
    noise = draws.normal(*pixels.shape) * draws.uniform(len(pixels)).view(-1, 1, 1, 1)
    return (model(pixels + noise) - pixels).square().mean(), {"noise": noise.square().mean()}


def adversarial(start_step: int) -> tuple[Callable[..., Any], Adversary]:
    """A denoising objective with a critic's opinion from `start_step` on, and the adversary that trains the critic."""
    torch.manual_seed(1)
    critic = Critic()

    def objective(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pixels = batch["pixels"]
        made = model(pixels + 0.3 * draws.normal(*pixels.shape))
        opinion = -critic(made).mean() if draws.step >= start_step else torch.zeros(())
        return (made - pixels).square().mean() + 0.1 * opinion, {"made": made}

    def hinge(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        real, fake = model(batch["pixels"]), model(batch["made"])
        return (1 - real).relu().mean() + (1 + fake).relu().mean(), {"margin": (real - fake).mean()}

    return objective, Adversary(model=critic, objective=hinge, start_step=start_step, learning_rate=3e-3)


def unlogged(metrics: Mapping[str, float], step: int) -> None:
    pass


def run(job: Mapping[str, Any]) -> TrainResult:
    """One job: `checkpoints`, and optionally `spec` (values other than SPEC's), `dropout`, `adversary` (start step)."""
    values = dict(job.get("spec", {}))
    values["ema"] = tuple(values.get("ema", ()))
    spec = replace(SPEC, **values)
    objective, adversary = adversarial(job["adversary"]) if "adversary" in job else (denoising, None)
    slow = job.get("seconds_a_step", 0.0)
    return fit(
        denoiser(job.get("dropout", 0.0)),
        objective,
        batches(spec),
        spec,
        checkpoints=Path(job["checkpoints"]),
        log=lambda metrics, step: time.sleep(slow),
        adversary=adversary,
    )


def kill_while_writing(checkpoints: Path, step: int) -> None:
    """SIGKILL this process as soon as the checkpoint of `step` is being written."""
    partial = checkpoints / f".step-{step:08d}.partial"

    def watch() -> None:
        while not partial.exists():
            time.sleep(1e-5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        if "kill_while_writing" in job:
            kill_while_writing(Path(job["checkpoints"]), job["kill_while_writing"])
        try:
            result: dict[str, Any] = {"losses": run(job).losses}
        except ValueError as error:
            result = {"error": str(error)}
        if os.environ.get("RANK", "0") == "0" and "result" in job:
            Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
