"""Training of the unified visual embedding: a proxy softmax for several tasks at once.

Every class has a vector, its proxy, and images are drawn to their classes' proxies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from canvas.pins.image_batches import load_square_images, select_evenly
from canvas.pins.images import bytes_to_tensor
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.uve.model import UveModel
from canvas.uve.spec import TrainUveParams
from canvas.uve.training_data import MISSING, BalancedCrops, Labels, UveBatch, select_classes


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


@dataclass(frozen=True, slots=True)
class ProxySoftmax:
    """The loop's objective: the weighted sum of the tasks' cross-entropies.

    A label that is missing (-1) adds nothing: the sum over those that are there is divided by the batch, so that it
    does not matter how a batch is cut up.
    """

    weights: Mapping[str, float]  # by task, in the order of the batch's labels

    def __call__(
        self, model: nn.Module, batch: UveBatch, draws: object
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, labels = batch["images"], dict(zip(self.weights, batch["labels"].unbind(1), strict=True))
        losses = {
            task: F.cross_entropy(logits, labels[task], ignore_index=MISSING, reduction="sum") / len(images)
            for task, logits in model(bytes_to_tensor(images)).items()
        }
        total = torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
        return total, {task: loss.detach() for task, loss in losses.items()}


def train_uve_model(
    model: UveModel,
    params: TrainUveParams,
    train: TrainSpec,
    pins: Path,
    pin_ids: Collection[str],
    labels: Labels,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> TrainResult:
    """Train `model` in place on at most `params.pins` of `pin_ids`, and on the tasks whose weight is above 0."""
    weights = {task: weight for task, weight in params.tasks.to_dict().items() if weight > 0}
    chosen = set(select_evenly(pin_ids, params.pins))
    labels = {task: {pin: name for pin, name in labels[task].items() if pin in chosen} for task in weights}
    classes = select_classes(labels, list(weights), params.min_pins)
    side = model.config["image_size"]
    ids, images = load_square_images(pins, chosen, round(side * params.crops.zoom))
    batches = BalancedCrops(
        ids, images, side, params.crops, train.batch_size, train.seed, labels=labels, classes=classes
    )
    classifier = ProxyClassifier(model, classes, params.temperature)
    return fit(classifier, ProxySoftmax(weights), batches, train, checkpoints=checkpoints, log=log)
