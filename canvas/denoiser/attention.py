"""Cross-attention keys and values, computed once a generation in place of once a step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

PROJECTION_NAMES = re.compile(r"(attn2\.to_[kv]|attn2\.processor\.to_[kv]_ip\.\d+|encoder_hid_proj)$")
"""The end of the name of what depends on the text states or the image prompt alone."""


class CachedProjection:
    """A projection that answers from memory when asked again for the very same tensor, or list of tensors.

    Identity, not equality, is what is compared: a caller who changes the text states between steps gets them
    projected anew. A list must not be changed in place.
    """

    def __init__(self, project: Callable[..., Any]) -> None:
        self.project = project
        self.asked: object = None
        self.answer: Any = None

    def __call__(self, states: object, *args: Any, **kwargs: Any) -> Any:
        if self.answer is None or states is not self.asked:
            self.asked, self.answer = states, self.project(states, *args, **kwargs)
        return self.answer


@contextmanager
def cache_projections(unet: nn.Module) -> Iterator[None]:
    """Within the context the denoiser projects its text states and image embeddings once, whatever its attention
    processors and LoRA are.

    For inference only: with gradients the graph of the first step would be kept.
    """
    layers = [layer for name, layer in unet.named_modules() if PROJECTION_NAMES.search(name)]
    before = [layer.__dict__.get("forward") for layer in layers]  # there if an offloading hook put it there
    for layer in layers:
        layer.forward = CachedProjection(layer.forward)  # an attribute of the instance, before the class's method
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
