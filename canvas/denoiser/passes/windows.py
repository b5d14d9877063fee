"""One long image denoised in overlapping windows at once: MultiDiffusion (Bar-Tal et al. 2023).

A denoiser knows frames of some aspects alone. In every step each window of a longer image gets a prediction as an image
of its own, and where windows overlap the predictions are averaged. So all windows agree at every step, and none
comes before another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class LatentPlace:
    """Where a window lies in an image; latent cells."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the window's part of latents (..., h, w): a view."""
        return latents[..., self.top : self.top + self.height, self.left : self.left + self.width]


def average_predictions(
    latents: torch.Tensor,
    places: Sequence[LatentPlace],
    conditions: Sequence[C],
    predict: Callable[[torch.Tensor, C], torch.Tensor],
) -> torch.Tensor:
    """Return the prediction for latents (N, C, h, w) of which each window sees its own part.

    It is the weighted mean of the windows' predictions (Bar-Tal et al. 2023, eq. 5): schedulers are linear in the
    prediction, so this is the mean of the steps that it gives. Weights fall towards a window's ends, where it
    knows least of what lies beyond. A single window's prediction comes back as it is.
    """
    if len(places) == 1:
        return predict(places[0].cut(latents), conditions[0])
    total, weights = torch.zeros_like(latents), latents.new_zeros(latents.shape[-2:])
    for place, condition in zip(places, conditions, strict=True):
        weight = compute_weight(place.height, place.width).to(latents)
        place.cut(total).add_(weight * predict(place.cut(latents), condition))
        place.cut(weights).add_(weight)
    assert bool((weights > 0).all()), "the windows do not cover the image"
    return total / weights


def compute_weight(height: int, width: int) -> torch.Tensor:
    """Return the weight (height, width) of a window's values, above 0: most in the middle, least at the ends."""
    lines = []
    for length in (height, width):
        places = torch.arange(length) + 0.5
        lines.append(torch.minimum(places, length - places) / length)
    return torch.outer(*lines)
