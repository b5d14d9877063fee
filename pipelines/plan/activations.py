"""How much memory the backward pass of a network will need, counted without running it.

Tensors on the meta device have shapes and no memory, so a forward pass of any size takes seconds; autograd's hooks
show every tensor that it would keep. Their formats are those of CUDA's autocast to half precision, without
torch.compile, which keeps less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from canvas.denoiser.family import SIZE_IDS, Denoiser, DenoiserCondition
from canvas.denoiser.loading import get_family

TEXT_TOKENS = 77
"""Length of a prompt to the text towers of a CLIP."""

HALF_FUNCTIONS = ("conv2d", "linear", "matmul", "__matmul__", "einsum", "multi_head_attention_forward")
"""Functions that autocast gives half precision, of those that our networks call."""

FULL_FUNCTIONS = ("group_norm", "layer_norm", "rms_norm", "interpolate", "normalize", "log", "sum", "l1_loss")
"""Likewise that it gives float32."""

CHECKPOINTED = ("BasicTransformerBlock", "ResnetBlock2D", "FluxTransformerBlock", "FluxSingleTransformerBlock")
"""Classes of the blocks that gradient checkpointing runs again."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes an image."""

    bytes: int
    recomputed_bytes: int  # if each block kept its inputs alone and was run again in the backward pass


class FusedAttention(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps: queries, keys, values, output and one number a query."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out


class _Autocast(TorchFunctionMode):
    """What CUDA's autocast would do, which the meta device has not; `copies` are its copies of weights. Attention is
    fused: the meta device would take the unfused path, whose score matrices no GPU keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: set[StorageWeakRef] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            inputs = [*args, *(kwargs[key] for key in ("query", "key", "value") if key in kwargs)]
            return FusedAttention.apply(*(self._cast(x, torch.bfloat16) for x in inputs[:3]))
        name = getattr(func, "__name__", "")
        dtype = torch.bfloat16 if name in HALF_FUNCTIONS else torch.float32 if name in FULL_FUNCTIONS else None
        if dtype is not None:
            args = tuple(self._cast(x, dtype) for x in args)
            kwargs = {key: self._cast(x, dtype) for key, x in kwargs.items()}
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float32, torch.bfloat16):
            return value
        cast = value.to(dtype)
        if isinstance(value, nn.Parameter) and cast is not value:
            self.copies.add(_get_storage(cast))
        return cast


def measure_activations(network: nn.Module, forward: Callable[[], object]) -> Activations:
    """Return what the backward pass needs beside the weights and their copies in half precision.

    `forward` passes one image through `network` on the meta device.
    """
    weights = {_get_storage(weight) for weight in network.parameters()}
    seen: dict[StorageWeakRef, torch.Tensor] = {}  # the tensors are held, so that no storage comes again
    inside: list[int] = []  # bytes kept by each block that is being run, outermost first
    blocks: list[tuple[int, int]] = []  # bytes kept, bytes of its inputs
    given: dict[StorageWeakRef, torch.Tensor] = {}  # inputs of blocks, each counted once
    autocast = _Autocast()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = _get_storage(tensor)
        if storage not in weights and storage not in autocast.copies and storage not in seen:
            seen[storage] = tensor
            for level in range(len(inside)):
                inside[level] += tensor.nbytes
        return tensor

    def enter(*_: Any) -> None:
        inside.append(0)

    def leave(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], __: Any) -> None:
        tensors = [x for x in (*inputs, *named.values()) if isinstance(x, torch.Tensor)]
        new_storages = {key: x for x in tensors if (key := _get_storage(x)) not in given}
        given.update(new_storages)
        blocks.append((inside.pop(), sum(x.untyped_storage().nbytes() for x in new_storages.values())))

    hooks = []
    for module in network.modules():
        if type(module).__name__ in CHECKPOINTED:
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, with_kwargs=True)]
    try:
        inside.append(0)
        with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward()
        total = inside.pop()
    finally:
        for hook in hooks:
            hook.remove()
    saved = sum(size - inputs for size, inputs in blocks)
    return Activations(total, total - saved + max((size for size, _ in blocks), default=0))


def _get_storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def run_denoiser(denoiser: Denoiser, side: int, text_tokens: int = TEXT_TOKENS) -> torch.Tensor:
    """Pass one image, whose latents have `side` cells on a side, and a prompt through a denoiser on the meta device,
    whatever its inputs of latents."""
    family = get_family(denoiser)
    sizes = family.get_input_sizes(denoiser.config)
    with torch.device("meta"):
        condition = DenoiserCondition(
            states=torch.empty(1, text_tokens, sizes.text),
            pooled=torch.empty(1, sizes.pooled),
            sizes=torch.empty(1, SIZE_IDS),
            images=None,
        )
        return family.predict(denoiser, torch.empty(1, sizes.channels, side, side), torch.empty(1), condition)
