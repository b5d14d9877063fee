"""Proxy softmax for several tasks at once: every class has a vector, and images are drawn to their classes'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from canvas.pins.images import bytes_to_tensor
from canvas.uve.model import UveModel
from canvas.uve.training_data import MISSING


class ProxyClassifier(nn.Module):
    """An embedding with a proxy for every class of every task; the proxies serve training alone.

    NormSoftmax (Zhai and Wu 2019, equation 5): logits are cosines over the temperature.
    """

    def __init__(self, uve: UveModel, classes: Mapping[str, Sequence[str]], temperature: float) -> None:
        super().__init__()
        self.uve = uve
        self.temperature = temperature
        width = uve.config["embed_dim"]
        self.proxies = nn.ParameterDict(
            {task: nn.Parameter(torch.randn(len(names), width)) for task, names in classes.items()}
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (B, classes) of each task, of images (B, 3, S, S) in [-1, 1]."""
        embedding = self.uve(images).float()
        return {
            task: embedding @ F.normalize(proxies, dim=1).T / self.temperature for task, proxies in self.proxies.items()
        }


class ProxySoftmax:
    """The loop's objective: the weighted sum of the tasks' cross-entropies on `images` uint8 (B, 3, S, S).

    A label that is missing (-1) adds nothing: the sum over those that are there is divided by the batch, so that it
    does not matter how a batch is cut up.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights

    def __call__(self, model: nn.Module, batch: Any, draws: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = batch["images"]
        losses = {
            task: F.cross_entropy(logits, batch[task], ignore_index=MISSING, reduction="sum") / len(images)
            for task, logits in model(bytes_to_tensor(images)).items()
        }
        total = torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
        return total, {task: loss.detach() for task, loss in losses.items()}
