"""Optimizers by their names in params, and their state in checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from canvas.train.distributed import list_shard_units, match_layout
from canvas.train.spec import Optimizer

LIBRARIES = {"bitsandbytes": "bitsandbytes.optim", "torchao": "torchao.optim"}
"""Where an AdamW with moments in 8 bits may come from (Dettmers et al. 2022): library -> its module, best first."""


class BlockMuon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices of blocks, AdamW for all else, as one optimizer.

    Muon's updates are scaled to the root mean square of AdamW's (Liu et al. 2025, eq. 4), so both take the same
    learning rate and weight decay.
    """

    def __init__(self, blocks: list[nn.Parameter], others: list[dict[str, Any]], rate: float, decay: float) -> None:
        muon = torch.optim.Muon(blocks, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        self._parts = [muon, *([torch.optim.AdamW(others, lr=rate, fused=True)] if others else [])]
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        for part in self._parts:  # the groups are shared already
            part.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with each."""
        for part in self._parts:
            part.step()


def build_optimizer(
    kind: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    blocks: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Build AdamW (Loshchilov & Hutter 2019), or Muon beside it; vectors (biases, norms, scales) do not decay.

    Args:
        kind: Its name in params.
        parameters: Name -> what is trained.
        learning_rate: Of the first step.
        weight_decay: Of matrices and kernels.
        blocks: Names of the parameters of blocks, whose matrices are Muon's.

    Raises:
        ValueError: No installed library has the one of `kind`, or it has nothing to do.
    """
    of_muon = {name for name in blocks if parameters[name].ndim == 2} if kind == "muon" else set()
    rest = [parameter for name, parameter in parameters.items() if name not in of_muon]
    matrices = [parameter for parameter in rest if parameter.ndim > 1]
    vectors = [parameter for parameter in rest if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if kind == "muon":
        if not of_muon:
            raise ValueError(
                'optimizer is "muon", but the model has no blocks with matrices to train: set it to adamw in '
                "train.override"
            )
        return BlockMuon(
            [parameters[name] for name in parameters if name in of_muon], groups, learning_rate, weight_decay
        )
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    optimizer: torch.optim.Optimizer = _find_adamw8bit(next(iter(parameters.values())).device)(groups, lr=learning_rate)
    return optimizer


def list_block_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Return the names of those parameters that lie in the blocks which `model` repeats, the units of FSDP."""
    inside = {id(parameter) for unit in list_shard_units(model) for parameter in unit.parameters()}
    return [name for name, parameter in parameters.items() if id(parameter) in inside]


def _find_adamw8bit(device: torch.device) -> Any:
    for library, module in LIBRARIES.items():
        if library == "bitsandbytes" and device.type != "cuda":
            continue  # its kernels are CUDA's
        try:
            return import_module(module).AdamW8bit
        except ImportError:
            continue
    raise ValueError(
        'optimizer is "adamw8bit", which needs bitsandbytes or torchao: install one of them, or set optimizer to adamw'
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # torchao's
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def flatten_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Return the state as `<parameter>:<key>` -> tensor; a parameter that had no gradient yet has none."""
    return {
        f"{name}:{key}": tensor
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
        for key, tensor in _list_tensors(slot, value)
    }


def _list_tensors(key: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a value of a state as tensors: bitsandbytes counts steps in an int, torchao's moments hold several."""
    if not isinstance(value, torch.Tensor):
        yield key, torch.tensor(value)
    elif is_traceable_wrapper_subclass(value) and hasattr(value, "codes"):
        for part in value.__tensor_flatten__()[0]:  # type: ignore[attr-defined]
            yield f"{key}.{part}", getattr(value, part)
    else:
        yield key, value


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Invert `flatten_optimizer_state`: a moment takes its parameter's memory format and sharding."""
    for flat, value in tensors.items():
        name, _, key = flat.rpartition(":")
        parameter = parameters[name]
        state, (key, _, part) = optimizer.state[parameter], key.partition(".")
        if part:
            if key not in state:
                state[key] = optimizer._new_buffer(parameter, key == "exp_avg")  # type: ignore[attr-defined]
            getattr(state[key], part).copy_(value)
        elif value.dtype == torch.int64:
            state[key] = int(value)
        elif value.shape == parameter.shape and value.is_floating_point() and key != "step":
            state[key] = match_layout(parameter, value)
        else:
            state[key] = value.to("cpu" if _keeps_steps_on_cpu(optimizer, key) else parameter.device)


def _keeps_steps_on_cpu(optimizer: torch.optim.Optimizer, key: str) -> bool:
    return key == "step" and hasattr(optimizer, "_new_buffer")
