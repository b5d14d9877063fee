"""The reward model's objective: which of two images is better, and which are good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.pins.images import bytes_to_tensor
from canvas.reward.batches import ComparisonBatch
from canvas.reward.model import KNOTS, RewardModel
from canvas.reward.spec import HEADS
from canvas.train.draws import Draws

CalibrationCurve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Logits, and chances at them."""


def pairwise_loss(first: torch.Tensor, second: torch.Tensor, preferred: torch.Tensor) -> torch.Tensor:
    """Return mean cross-entropy of P(first is better) = sigmoid(first - second) (Bradley and Terry 1952).

    All (B, Q); `preferred` in 0..1, 0.5 a tie, NaN not asked. 0 if nothing was asked.
    """
    return absolute_loss(first - second, preferred)


def absolute_loss(logits: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Return mean cross-entropy of sigmoid(logits) with `good` (B, Q) in 0..1, NaN not asked; 0 if nothing was."""
    asked = ~good.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, good.nan_to_num(), reduction="none")
    return (losses * asked).sum() / asked.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class RewardObjective:
    """Objective of the training loop."""

    absolute_weight: float
    background_weight: float

    def __call__(
        self, model: nn.Module, batch: ComparisonBatch, draws: Draws
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        backgrounds = torch.cat([batch["first_background"], batch["second_background"]])
        offered, places = torch.unique(backgrounds, dim=0, return_inverse=True)
        (first, second), matches = _run_model(model, batch, offered)
        pairs = pairwise_loss(first, second, batch["preferred"])
        good = absolute_loss(torch.cat([first, second]), torch.cat([batch["first_good"], batch["second_good"]]))
        background = background_loss(matches, offered, places)
        with torch.no_grad():
            right = ((first > second) == (batch["preferred"] > 0.5)).float()
            asked = ~batch["preferred"].isnan()
            accuracy = (right * asked).sum() / asked.sum().clamp(min=1)
        loss = pairs + self.absolute_weight * good + self.background_weight * background
        return loss, {"pairwise": pairs, "absolute": good, "background": background, "accuracy": accuracy}


def background_loss(matches: torch.Tensor, offered: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return, summed over the backgrounds of the batch, the mean cross-entropy of each being shown or not.

    The sigmoid loss of Zhai et al. 2023, eq. 1, so that a background has a chance of its own, whatever others there
    are. An image without words shows an unknown background: nothing to learn.

    Args:
        matches: Logits (B, K).
        offered: Backgrounds (K, L).
        places: Of each image its background's row in `offered`, (B,).
    """
    has_words = (offered > 0).any(dim=1)
    targets = F.one_hot(places, len(offered)).to(matches.dtype)
    losses = F.binary_cross_entropy_with_logits(matches, targets, reduction="none")
    is_known = has_words[places]
    return (losses * has_words * is_known[:, None]).sum() / is_known.sum().clamp(min=1)


def compute_logits(model: nn.Module, batch: ComparisonBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (B, Q) of the first and the second images of a batch whose images have the model's size."""
    return _run_model(model, batch, batch["words"][:0])[0]


def _run_model(
    model: nn.Module, batch: ComparisonBatch, offered: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return logits of the first and of the second images, and of all, the first ones first, showing `offered`."""
    originals, masks = bytes_to_tensor(batch["originals"]), batch["masks"].float()
    logits, matches = model(
        bytes_to_tensor(torch.cat([batch["first"], batch["second"]])),
        torch.cat([originals, originals]),
        torch.cat([masks, masks]),
        torch.cat([batch["words"], batch["words"]]),
        offered,
    )
    return logits.chunk(2), matches


def set_calibration(model: RewardModel, curves: Mapping[str, CalibrationCurve]) -> None:
    """Give the model, in place, the calibration of each head: logits and the chances at them, both ascending."""
    for place, head in enumerate(HEADS):
        knots, levels = curves[head]
        at = np.linspace(0, len(knots) - 1, KNOTS).round().astype(int)
        model.knots[place] = torch.from_numpy(np.asarray(knots)[at])
        model.chances[place] = torch.from_numpy(np.asarray(levels)[at])
