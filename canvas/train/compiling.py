"""torch.compile for training, where frames of several shapes take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from canvas.train.distributed import list_shard_units

MAX_COMPILED_SHAPES = 64
"""Versions of one block's code that are kept: a block is compiled anew for each width, frame and mode (training,
scoring) that it meets. torch's own limit of 8 would let the rest run uncompiled, without a word."""


def compile_blocks(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks that `model` repeats, in place, or all of it if it names none: each shape once, as it is.

    A block's code is compiled once for all its copies. Shapes are not made symbolic: frames are few, and code for one
    shape is faster. Call it before `shard_model`, as torch's FSDP2 asks.
    """
    from torch._dynamo import config as limits  # seconds, for those who compile

    limits.recompile_limit = max(limits.recompile_limit, MAX_COMPILED_SHAPES)
    for block in list(_list_repeated_blocks(model)) or [model]:
        block.compile(backend=backend, dynamic=False)


def _list_repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    if names := set(getattr(model, "_repeated_blocks", None) or ()):
        return (module for module in model.modules() if type(module).__name__ in names)
    return iter(list_shard_units(model))
