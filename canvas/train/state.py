"""The identity of a run, and the global state of torch while it trains."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from canvas.train.spec import TrainSpec


def compute_run_identity(spec: TrainSpec, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Return what a run shares with one that continues it: the spec's identity, names and shapes of tensors."""
    shapes = "\n".join(
        f"{prefix}{name} {tuple(tensor.shape)} {tensor.dtype}"
        for prefix, group in tensors.items()
        for name, tensor in sorted(group.items())
    )
    return {**spec.get_identity(), "model": hashlib.sha256(shapes.encode()).hexdigest()[:16]}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Hold `model` in eval mode without gradients; afterwards each of its modules is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def deterministic_mode(device: torch.device) -> Iterator[None]:
    """Restore the caller's random state afterwards; on CPU, where it costs nothing, algorithms are deterministic."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic  # its attributes are set up behind a type checker's back
    fill = settings.fill_uninitialized_memory
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True, warn_only=True)
            settings.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            settings.fill_uninitialized_memory = fill


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's own generators; `torch.manual_seed` also seeks out every other device, at 0.4 ms a call."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def measure_peak_memory(device: torch.device) -> int:
    """Return the bytes that CUDA's allocator of this process held at most, or the resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
