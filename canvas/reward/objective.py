"""What the reward model learns: which of two pictures is better, and which are good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.reward.model import KNOTS, RewardModel
from canvas.reward.spec import HEADS
from canvas.train.data import Batch
from canvas.train.draws import Draws

CalibrationCurve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Logits, and chances at them."""


def pairwise_loss(first: torch.Tensor, second: torch.Tensor, preferred: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of P(first is better) = sigmoid(first - second) (Bradley and Terry 1952) with `preferred`.

    All (B, Q); `preferred` in 0..1, 0.5 a tie, NaN not asked. 0 if nothing was asked.
    """
    return _masked_loss(first - second, preferred)


def absolute_loss(logits: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of sigmoid(logits) with `good` (B, Q) in 0..1, NaN not asked; 0 if nothing was."""
    return _masked_loss(logits, good)


def _masked_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    asked = ~wanted.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, wanted.nan_to_num(), reduction="none")
    return (losses * asked).sum() / asked.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class RewardObjective:
    """Objective of the training loop. Columns of a batch: first, second, originals, uint8 (B, 3, S, S); masks
    (B, 1, S, S); words (B, MAX_WORDS); first_shown, second_shown likewise, of the background that each picture shows, 0
    where nobody knows; preferred, first_good, second_good (B, Q)."""

    absolute_weight: float
    background_weight: float

    def __call__(self, model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        shown = torch.cat([torch.as_tensor(batch[name]) for name in ("first_shown", "second_shown")])
        offered, places = shown.unique(dim=0, return_inverse=True)
        (first, second), matches = _run_model(model, batch, offered)
        preferred, first_good, second_good = (
            torch.as_tensor(batch[name]) for name in ("preferred", "first_good", "second_good")
        )
        pairs = pairwise_loss(first, second, preferred)
        good = absolute_loss(torch.cat([first, second]), torch.cat([first_good, second_good]))
        named = background_loss(matches, offered, places)
        with torch.no_grad():
            right = ((first > second) == (preferred > 0.5)).float()
            asked = ~preferred.isnan()
            share = (right * asked).sum() / asked.sum().clamp(min=1)
        loss = pairs + self.absolute_weight * good + self.background_weight * named
        return loss, {"pairwise": pairs, "absolute": good, "background": named, "accuracy": share}


def background_loss(matches: torch.Tensor, offered: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the backgrounds that pictures show among those of the batch (as Radford et al. 2021 tell
    captions apart): logits `matches` (B, K), `offered` (K, MAX_WORDS), `places` (B,) in it. Where nobody knows what is
    shown, a row without words, there is nothing to learn; 0 if nobody knows any."""
    wordless = ~(offered > 0).any(dim=1)
    asked = ~wordless[places]
    if not asked.any():
        return matches.sum() * 0
    return F.cross_entropy(matches.masked_fill(wordless, -torch.inf)[asked], places[asked])


def compute_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, Q) of the first and the second pictures of a batch whose pictures have the model's size."""
    return _run_model(model, batch, torch.as_tensor(batch["words"])[:0])[0]


def _run_model(
    model: nn.Module, batch: Batch, offered: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Logits of the first and of the second pictures, and of both, the first ones first, showing those `offered`."""
    first, second, originals, masks, words = (
        torch.as_tensor(batch[name]) for name in ("first", "second", "originals", "masks", "words")
    )
    known = originals.float() / 127.5 - 1
    logits, matches = model(
        torch.cat([first, second]).float() / 127.5 - 1,
        torch.cat([known, known]),
        torch.cat([masks, masks]).float(),
        torch.cat([words, words]),
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
