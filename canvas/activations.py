"""How much memory the backward pass of the denoiser will need, counted without running it.

Tensors on the meta device have shapes and no memory, so a forward pass of any size takes seconds; autograd's hooks
show every tensor that it would keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from canvas.models.denoiser import SIZE_IDS

TOKENS = 77
BYTES = 2  # of a number under autocast


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes a picture, in half precision."""

    bytes: int
    recomputed_bytes: int  # if each block kept its inputs alone and was run again in the backward pass


class _KeepsInputs(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps: queries, keys, values, output and one number a query."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out


class _FusedAttention(TorchFunctionMode):
    """The meta device would take the unfused path, whose score matrices no GPU keeps."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _KeepsInputs.apply(*args[:3])
        return func(*args, **(kwargs or {}))


def activations(denoiser: nn.Module) -> Activations:
    """What the backward pass of one picture needs of `denoiser` (on the meta device, any inputs of latents)."""
    weights = {_storage(weight) for weight in denoiser.parameters()}
    seen: dict[StorageWeakRef, torch.Tensor] = {}  # the tensors are held, so that no storage comes again
    inside: list[int] = []  # bytes kept by each block that is being run, outermost first
    blocks: list[tuple[int, int]] = []  # bytes kept, bytes of its inputs

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = _storage(tensor)
        if storage not in weights and storage not in seen:
            seen[storage] = tensor
            for level in range(len(inside)):
                inside[level] += _bytes(tensor)
        return tensor

    def enter(*_: Any) -> None:
        inside.append(0)

    def leave(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
        given = sum(_bytes(x) for x in inputs if isinstance(x, torch.Tensor))
        blocks.append((inside.pop(), given))

    hooks = []
    for module in denoiser.modules():
        if type(module).__name__ in ("BasicTransformerBlock", "ResnetBlock2D"):
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        inside.append(0)
        with _FusedAttention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _forward(denoiser)
        total = inside.pop()
    finally:
        for hook in hooks:
            hook.remove()
    kept = sum(size for size, _ in blocks)
    again = total - kept + sum(given for _, given in blocks) + max((size for size, _ in blocks), default=0)
    return Activations(total, again)


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * BYTES


def _forward(denoiser: Any) -> None:
    config = denoiser.config
    side = config["sample_size"]
    pooled = config["projection_class_embeddings_input_dim"] - SIZE_IDS * config["addition_time_embed_dim"]
    with torch.device("meta"):
        denoiser(
            torch.empty(1, config["in_channels"], side, side),
            torch.empty(1),
            torch.empty(1, TOKENS, config["cross_attention_dim"]),
            added_cond_kwargs={"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, SIZE_IDS)},
        )
