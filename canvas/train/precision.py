"""The number format that training or sampling multiplies in: `precision` of its params, on the machine it meets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from canvas.train.spec import Precision


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Resolve `auto`: bf16 where `device` has units that multiply it (CUDA since Ampere, processors with AMX or
    AVX512_BF16); else fp32, as emulated bf16 would save memory and cost time.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    units = torch.cpu.get_capabilities()
    return "bf16" if units.get("amx_bf16", False) or units.get("avx512_bf16", False) else "fp32"


def get_autocast_dtype(precision: Precision) -> torch.dtype | None:
    """Return what autocast casts to; None: nothing. `precision` is resolved."""
    assert precision != "auto", "which precision is meant depends on the device"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def choose_autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return what `precision`, `auto` too, casts to on `device`; None: nothing."""
    return get_autocast_dtype(resolve_precision(precision, device))


@contextmanager
def autocast(dtype: torch.dtype | None, device: torch.device) -> Iterator[None]:
    """Autocast to `dtype`; None: none. On a CPU attention is then spelled out as matrix products: torch's flash
    attention takes no advantage of units for bf16 there, and its backward pass is 15 times as slow as theirs."""
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        if dtype is None or device.type != "cpu":
            yield
        else:
            with sdpa_kernel(SDPBackend.MATH):
                yield


@contextmanager
def cast_parameters(dtype: torch.dtype | None, module: nn.Module) -> Iterator[None]:
    """Cast the floats of `module` to `dtype` within the context, and put the very ones of before back; None: no cast.
    For inference, where it takes 0.7 of autocast's time on a processor (docs/experiments/)."""
    tensors = list(chain(module.parameters(), module.buffers())) if dtype is not None else []
    originals = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()]
    for tensor, data in originals:
        tensor.data = data.to(dtype)
    try:
        yield
    finally:
        for tensor, data in originals:
            tensor.data = data
