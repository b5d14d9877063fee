"""Cross-attention keys and values, computed once a generation in place of once a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

PROJECTIONS = ("attn2.to_k", "attn2.to_v")


class Remembered:
    """A projection that answers from memory when asked again for the very same tensor.

    Identity, not equality, is what is compared: a caller who changes the text states between steps gets them
    projected anew.
    """

    def __init__(self, project: Callable[..., torch.Tensor]) -> None:
        self.project = project
        self.asked: torch.Tensor | None = None
        self.answer: torch.Tensor | None = None

    def __call__(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.answer is None or states is not self.asked:
            self.asked, self.answer = states, self.project(states, *args, **kwargs)
        return self.answer


@contextmanager
def projections_once(unet: nn.Module) -> Iterator[None]:
    """Within the context the denoiser projects its text states once, whatever its attention processors and LoRA are.

    For inference only: with gradients the graph of the first step would be kept.
    """
    layers = [layer for name, layer in unet.named_modules() if name.endswith(PROJECTIONS)]
    before = [layer.__dict__.get("forward") for layer in layers]  # there if an offloading hook put it there
    for layer in layers:
        layer.forward = Remembered(layer.forward)  # an attribute of the instance, before the class's method
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
