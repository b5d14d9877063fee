"""Each measurement of `make gpu`: a function of the workload that returns JSON."""

from __future__ import annotations

import gc
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.distributed as dist

from bench.gpu.stock import StockLoss
from bench.gpu.wheels import UNPACKED
from bench.gpu.workload import Workload
from canvas.denoiser.dit.spec import DitSpec
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition, LatentSampler, sample_noise
from canvas.denoiser.unet.spec import UNetSpec
from canvas.device import default_device
from canvas.train.distributed import join_world
from canvas.train.loop import fit
from canvas.train.state import measure_peak_memory
from pipelines.plan.activations import measure_activations, run_denoiser
from pipelines.plan.memory import build_denoiser_rows

Figures = dict[str, Any]

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 operations a second by the makers' data sheets, of the SXM form."""

STEPS = 48

MODES = {"fsdp": False, "fsdp_compiled": True}
"""Name -> whether compiled."""


def describe_machine() -> Figures:
    """Return what the GPU is, and the operations a second that a product of large bf16 matrices reaches on it."""
    properties = torch.cuda.get_device_properties(0)
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in properties.name), None)
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = _time_steps(lambda: left @ right, 20)
    return {
        "gpu": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "peak_flops": peak,
        "matmul_flops": 2 * 8192**3 / seconds,
    }


def _time_steps(step: Callable[[], object], count: int, warmup: int = 5) -> float:
    """Return the median seconds of a step."""
    wait: Callable[[], object] = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for number in range(warmup + count):
        wait()
        start = time.perf_counter()
        step()
        wait()
        if number >= warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def run_cuda_tests() -> Figures:
    """Return how many of tests/cuda passed, failed and were skipped."""
    command = [sys.executable, "-m", "pytest", "tests/cuda", "--noconftest", "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(UNPACKED)])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    last = (result.stdout.strip().splitlines() or [result.stderr.strip()[-300:]])[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    return {"passed": 0, "failed": 0, **counts, "exit": result.returncode, "output": result.stdout[-2000:]}


def measure_training(workload: Workload, *, compiled: bool, steps: int = STEPS) -> Figures:
    """Return the speed, model FLOPs' share and memory of our own loop, and the memory that the plan says."""
    spec = workload.build_spec(steps, compile=compiled)
    with torch.device("meta"):
        twin = workload.build_denoiser()
    activations = measure_activations(twin, lambda: run_denoiser(twin, workload.side))
    rows = build_denoiser_rows(twin, activations, spec, images=spec.batch_size, gpus=1)
    _reset_peak()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        result = fit(
            workload.build_denoiser(),
            workload.build_objective(),
            workload.build_batches(),
            spec,
            checkpoints=Path(place),
            log=lambda values, step: None,
        )
    return {
        "images_per_second": result.images_per_second,
        "seconds": time.perf_counter() - start,
        "peak_bytes": result.peak_memory_bytes,
        "planned_bytes": rows[-1][2],
        "losses": result.losses,
    }


def measure_diffusers(workload: Workload, *, compiled: bool, steps: int = STEPS) -> Figures:
    """Return the speed of the step of diffusers' example script for the family (bench.gpu.stock): cached latents and
    text states, autocast, AdamW as those scripts build it, without accelerate round it."""
    device = default_device()
    denoiser = workload.build_denoiser().to(device).train()
    model = torch.compile(denoiser) if compiled else denoiser
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=workload.learning_rate, weight_decay=1e-2)
    compute_loss, samples, size = StockLoss(workload.denoiser.kind), workload.build_samples(), workload.batch_size
    latents = samples["moments"].chunk(2, dim=1)[0]
    cursor = 0

    def step() -> None:
        nonlocal cursor
        rows = torch.arange(cursor, cursor + size) % len(latents)
        cursor += size
        clean = latents[rows].to(device, torch.float32)
        states, pooled = (samples[name][rows, 0].to(device, torch.float32) for name in ("text_states", "text_pooled"))
        with torch.autocast(device.type, torch.bfloat16):
            loss = compute_loss(model, clean, states, pooled, samples["sizes"][rows].to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    _reset_peak()
    seconds = _time_steps(step, steps // 2)
    return {"images_per_second": size / seconds, "peak_bytes": measure_peak_memory(device)}


def measure_sampling(workload: Workload, *, images: int = 16, steps: int = 30) -> Figures:
    """Return the images a second of the sampler with guidance, in bf16."""
    unet = workload.build_denoiser().to(default_device()).eval()
    sampler, condition = build_sampler(workload, unet, steps), build_condition(workload, images)
    noise = sample_noise((workload.channels, workload.side, workload.side), range(images), unet.device)
    return {"images_per_second": images / _time_steps(lambda: sampler.sample(noise, condition), 5, warmup=1)}


def build_sampler(workload: Workload, denoiser: Any, steps: int) -> LatentSampler:
    return LatentSampler(
        denoiser=denoiser,
        scheduler=build_training_scheduler(workload.diffusion),
        scale=workload.build_scale(),
        steps=steps,
        guidance_scale=3.0,
        precision="bf16",
    )


def build_condition(workload: Workload, images: int) -> Condition:
    samples, device = workload.build_samples(images), default_device()
    return Condition(
        states=samples["text_states"][:, 0].float().to(device),
        pooled=samples["text_pooled"][:, 0].float().to(device),
        sizes=samples["sizes"].to(device),
    )


def check_nccl(workload: Workload, modes: Mapping[str, bool] = MODES) -> Figures:
    """Return the losses of FSDP over NCCL in a world of one, compiled or not by `modes`, beside those without it."""
    figures: Figures = {}
    with join_world("fsdp") as world:
        figures["backend"] = dist.get_backend()
        values = torch.ones(4, device=world.device)
        dist.all_reduce(values)
        figures["all_reduce"] = values.tolist()
    for name, compiled in modes.items():
        spec = workload.build_spec(8, parallel="fsdp", compile=compiled, accumulate=2)
        figures[name] = _train_small(workload, spec)
    figures["alone"] = _train_small(workload, workload.build_spec(8))
    return figures


def shrink(workload: Workload) -> Workload:
    """Return the workload with a denoiser that learns in seconds."""
    unet = UNetSpec(
        channels=(64, 128),
        layers_per_block=1,
        transformer_layers=(0, 1),
        heads=(2, 4),
        size_embedding=32,
        norm_groups=16,
    )
    dit = DitSpec(
        heads=4, head_width=32, double_blocks=1, single_blocks=3, zero_modulation=False, rope_widths=(4, 14, 14)
    )
    kind = workload.denoiser.kind
    sizes: dict[str, Any] = {"unet": unet if kind == "unet" else None, "dit": dit if kind == "dit" else None}
    return replace(workload, denoiser=replace(workload.denoiser, **sizes), side=16, batch_size=64, learning_rate=1e-3)


def _train_small(workload: Workload, spec: Any, unet: Any = None) -> list[float]:
    with tempfile.TemporaryDirectory() as place:
        result = fit(
            workload.build_denoiser() if unet is None else unet,
            workload.build_objective(),
            workload.build_batches(),
            spec,
            checkpoints=Path(place),
            log=lambda values, step: None,
        )
    return [loss for _, loss in result.losses]


def learn_samples(workload: Workload, steps: int = 600) -> tuple[Figures, torch.Tensor, torch.Tensor]:
    """Return figures of a short training that must learn, its targets and its samples, latents (16, C, h, w)."""
    unet = workload.build_denoiser()
    losses = _train_small(workload, workload.build_spec(steps), unet)
    targets = workload.build_samples(16)["moments"].chunk(2, dim=1)[0].float()
    noise = sample_noise((workload.channels, workload.side, workload.side), range(16), unet.device)
    sampled = build_sampler(workload, unet, 30).sample(noise, build_condition(workload, 16)).float().cpu()
    error = float((sampled - targets).square().mean() / targets.square().mean())
    return {"losses": losses, "relative_error": error}, targets, sampled


def free_memory() -> None:
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()


def list_measurements(workload: Workload) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """Yield name and measurement, the quick and sure ones first."""
    yield "machine", describe_machine
    yield "training_eager", lambda: measure_training(workload, compiled=False)
    yield "diffusers_eager", lambda: measure_diffusers(workload, compiled=False)
    yield "sampling", lambda: measure_sampling(workload)
    yield "nccl", lambda: check_nccl(shrink(workload))
    yield "training_compiled", lambda: measure_training(workload, compiled=True)
    yield "diffusers_compiled", lambda: measure_diffusers(workload, compiled=True)
    yield "tests", run_cuda_tests
