"""The projection of hidden states, and their distance to the features of a frozen network.

N: latents in a pass, W: width of a hidden state, F: of a feature. A head is part of the denoiser while that is trained,
so that it is trained, saved and resumed with it; what is saved as a model does not have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from canvas.denoiser.family import Denoiser
from canvas.denoiser.feature_alignment.spec import FeatureAlignment
from canvas.denoiser.loading import get_family

NAME = "alignment_head"
"""Name of the head among the denoiser's modules."""


class AlignmentHead(nn.Module):
    """Three layers from hidden states to features (Yu et al. 2025, section 3.2), run as its block ends."""

    def __init__(self, inner: int, width: int, outer: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inner, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outer)
        )
        self.is_active = False
        self.projected: torch.Tensor | None = None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return hidden states (N, W, ...) as features (N, F, ...)."""
        projected: torch.Tensor = self.layers(states.movedim(1, -1)).movedim(-1, 1)
        return projected


@contextmanager
def align_denoiser(denoiser: Denoiser, spec: FeatureAlignment, features: int, seed: int) -> Iterator[None]:
    """Give the denoiser a head for features of that width, in place, for as long as the context lasts.

    Raises:
        ValueError: The denoiser has no such block.
    """
    family = get_family(denoiser)
    width = family.get_hidden_width(denoiser, spec.layer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = AlignmentHead(width, spec.width, features)
    denoiser.add_module(NAME, head.to(denoiser.device))
    block: nn.Module = denoiser.get_submodule(spec.layer)
    hook = block.register_forward_hook(_Capture(head, family.get_hidden_states))
    try:
        yield
    finally:
        hook.remove()
        delattr(denoiser, NAME)


class _Capture:
    """A hook that is copied with its denoiser: a copy of both knows the copied head."""

    def __init__(self, head: AlignmentHead, read: Any) -> None:
        self.head, self.read = head, read

    def __call__(self, block: nn.Module, inputs: object, output: Any) -> None:
        if (
            self.head.is_active and self.head.training
        ):  # within the denoiser's own forward pass, where FSDP has gathered the head's weights
            self.head.projected = self.head(self.read(output))


def set_active(denoiser: nn.Module, active: bool) -> None:
    """Let the head of an aligned denoiser run in its next passes in training, or rest."""
    getattr(denoiser, NAME).is_active = active


def compute_gap(denoiser: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine similarity (N,) of the last pass's projected states and `features` (N, F, rows, columns)."""
    head: AlignmentHead = getattr(denoiser, NAME)
    projected, head.projected = head.projected, None
    assert projected is not None, "the denoiser had no pass since the head was active"
    if projected.ndim == 3:  # tokens, row by row, of as many rows to a column as features have
        number, width, tokens = projected.shape
        height = math.isqrt(tokens * features.shape[2] // features.shape[3])
        projected = projected.reshape(number, width, height, tokens // height)
    rows, columns = projected.shape[2:]
    targets = F.adaptive_avg_pool2d(features.float(), (rows, columns))
    return 1 - F.cosine_similarity(projected.float(), targets, dim=1).flatten(1).mean(dim=1)
