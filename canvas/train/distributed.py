"""One process or many: joining, wrapping, and tensors in and out of shards.

Under `torchrun` each process is a rank; without it a run is a world of one, whatever `parallel` says, so that the
same parameters work on a laptop. DDP and FSDP2 run here on gloo and CPU (the tests); NCCL and CUDA follow torch's
documentation but were never run by this project's tests.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from canvas.device import default_device, explain_unusable_gpu

T = TypeVar("T")

RANK_TIMEOUT = timedelta(hours=2)
"""How long a rank waits for another, as for the last shard that one encodes; NCCL's ten minutes would end the run. Of a
world of one, too: its group is made alike."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()

    def select_share(self, items: Sequence[T]) -> list[T]:
        """Return this rank's of `items`: every `size`-th of them."""
        return list(items[self.rank :: self.size])

    def reduce_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over the ranks."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def broadcast(self, value: T) -> T:
        """Return rank 0's small picklable `value`, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]


SINGLE_PROCESS = World(0, 1, torch.device("cpu"))
"""A process without peers."""


@contextmanager
def join_world(parallel: Literal["none", "ddp", "fsdp"]) -> Iterator[World]:
    """Join the world that torchrun set up, or make a world of one.

    The process group of many is made once and lives as long as the process, since a second run may follow and ranks
    that leave and join again can wait for each other for ever; that of a world of one ends with the run.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if parallel == "none" and size > 1:
        raise ValueError(f"parallel is none in a world of {size} processes: set it to ddp or fsdp, or drop torchrun")
    if size > 1 and (reason := explain_unusable_gpu()) is not None:
        raise ValueError(f"{size} processes would compute on the CPU: {reason}")
    device = default_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if parallel == "none" or (size == 1 and parallel == "ddp"):
        yield World(0, 1, device)
        return
    is_new = not dist.is_initialized()
    if is_new:
        options = get_group_options(device)
        if size == 1:
            dist.init_process_group(**options, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        else:
            dist.init_process_group(**options)
            atexit.register(dist.destroy_process_group)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if is_new and size == 1:
            dist.destroy_process_group()


def get_group_options(device: torch.device) -> dict[str, Any]:
    """Return how the process group is made. A group that knows its device connects at once, and no barrier guesses."""
    if device.type == "cuda":
        return {"backend": "nccl", "timeout": RANK_TIMEOUT, "device_id": device}
    return {"backend": "gloo", "timeout": RANK_TIMEOUT}


def replicate_model(module: nn.Module, world: World) -> nn.Module:
    """Return `module` with its gradients averaged over the ranks (DDP); parameters may go without a gradient."""
    if world.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    return DistributedDataParallel(module, find_unused_parameters=True)


def shard_model(model: nn.Module, dtype: torch.dtype | None, world: World) -> None:
    """Shard `model` in place over the ranks (FSDP2), a unit at a time. Raises ValueError if their weights differ.

    Units are the classes that the model names in `_no_split_modules`, as diffusers' and transformers' models do, or
    else the members of its outermost `nn.ModuleList`s. Weights are gathered in `dtype`, if it is given, and gradients
    reduced in float32.
    """
    weights = [float(parameter.detach().double().sum()) for parameter in model.parameters()]
    if world.size > 1 and world.broadcast(weights) != weights:
        raise ValueError(f"{type(model).__name__} starts with other weights on rank {world.rank}: seed its init alike")
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype and torch.float32, cast_forward_inputs=False)
    for unit in list_shard_units(model):
        fully_shard(unit, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


def list_shard_units(model: nn.Module) -> list[nn.Module]:
    """Return the submodules that are gathered as a whole, innermost first."""
    classes = set(getattr(model, "_no_split_modules", None) or ())
    if units := [module for module in model.modules() if type(module).__name__ in classes]:
        return units[::-1]
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = [lists[name] for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return [unit for units in outermost for unit in units.children() if any(True for _ in unit.parameters())]


@contextmanager
def sync_gradients(module: nn.Module, last: bool) -> Iterator[None]:
    """Let DDP send gradients over the network in the last backward pass of an accumulated step only.

    FSDP sends them in each: what it adds up in between is whole on every rank, in float32, which is what shards avoid.
    """
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


def get_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` in full, detached; collective when it is sharded."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def get_local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of `tensor`, detached, sharing its memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_weights(model: nn.Module, sharded: nn.Module, device: torch.device) -> None:
    """Copy the weights and buffers of `sharded` into its unsharded twin `model`, on every rank; collective."""
    sources = {**dict(sharded.named_parameters()), **dict(sharded.named_buffers())}
    with torch.no_grad():
        for name, target in (*model.named_parameters(), *model.named_buffers()):
            target.copy_(get_full_tensor(sources[name]))
    model.to(device)


def gather_tensors(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """Return `tensors` in full on rank 0's CPU, gathered one at a time to save device memory; empty elsewhere."""
    gathered = {}
    for name, tensor in tensors.items():
        full = get_full_tensor(tensor)
        if world.rank == 0:
            gathered[name] = full.cpu().contiguous()
    return gathered


def match_layout(like: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    """Copy `full` to the device, memory format and sharding of `like`."""
    if isinstance(like, DTensor):
        full = full.to(like.device, like.dtype)
        return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
    return torch.empty_like(like).copy_(full)
