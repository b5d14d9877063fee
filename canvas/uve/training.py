"""Training of the unified visual embedding on labels of pins by task: scene, product, category, board.

Every class has a vector, its proxy, and images are drawn to their classes' proxies. Batches take classes in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.fallbacks import Notes
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatch, CropBatches, load_square_images, select_evenly
from canvas.pins.images import Pixels, bytes_to_tensor
from canvas.train.data import get_local_batch_size
from canvas.train.draws import mix_seed
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.uve.model import UveModel
from canvas.uve.spec import TASKS, TrainUveParams

MISSING = -1  # label of a pin that a task has no class for: no loss
Labels = Mapping[str, Mapping[str, str]]
"""Task -> pin_id -> class; pins without a class are left out."""


def read_labels(pins: Path, truth: Path, captions: Path, pin_ids: Collection[str]) -> Labels:
    """Read the classes of the pins in every one of TASKS.

    The scene is truth's; of pins that truth does not hold, it is the background of the generated caption.
    """
    labels: dict[str, dict[str, str]] = {task: {} for task in TASKS}
    for row in tables.iterate_rows(pins, ["product_id", "category", "board"], pin_ids):
        for task, column in (("product", "product_id"), ("category", "category"), ("board", "board")):
            if row[column]:
                labels[task][row["pin_id"]] = row[column]
    scene_of = {row["pin_id"]: row["scene"] for row in tables.read(truth, ["pin_id", "scene"]).to_pylist()}
    labels["scene"] = {pin: scene for pin, scene in scene_of.items() if scene and pin in pin_ids}
    for pin, background in read_backgrounds(captions, pin_ids).items():
        if pin not in scene_of:
            labels["scene"][pin] = background
    return labels


def select_classes(labels: Labels, tasks: Sequence[str], min_pins: int, notes: Notes) -> dict[str, list[str]]:
    """Return the classes of each of `tasks` that `min_pins` pins have, sorted; tasks with fewer than two are left out,
    which is noted."""
    classes = {}
    for task in tasks:
        counts = Counter(labels[task].values())
        names = sorted(name for name, count in counts.items() if count >= min_pins)
        if len(names) >= 2:
            classes[task] = names
        else:
            notes.add(f"task {task} has {len(names)} classes of {min_pins} pins or more, so it was not trained")
    return classes


class UveBatch(CropBatch):
    """Crops of labelled images."""

    labels: torch.Tensor  # int64 [B, T], of each task the class's number, or MISSING


class BalancedCrops(CropBatches):
    """Crops of images with their labels: T tasks, in the order of `classes`.

    Tasks take turns, each draws one of its classes, and the class one of its pins: rare classes come as often as
    frequent ones. What a sample is, is a function of the seed, the step and its place.
    """

    def __init__(
        self,
        ids: list[str],
        images: list[Pixels],
        side: int,
        crops: CropSpec,
        batch_size: int,
        seed: int,
        *,
        labels: Labels,
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__(ids, images, side, crops, batch_size, seed)
        columns: list[NDArray[np.int64]] = []
        self.members: list[list[NDArray[np.int64]]] = []  # of each task, the rows of each class
        for task, names in classes.items():
            number = {name: at for at, name in enumerate(names)}
            column = np.array([number.get(labels[task].get(pin, ""), MISSING) for pin in ids])
            members = [np.flatnonzero(column == at) for at in range(len(names))]
            self.members.append([rows for rows in members if len(rows)])
            columns.append(column)
        self.labels = torch.from_numpy(np.stack(columns, axis=1))  # [N, T]

    def select_rows(self, step: int, rank: int, world: int) -> NDArray[np.int64]:
        """Return the rows of the images of this rank's slice of batch `step`."""
        local = get_local_batch_size(self.batch_size, world)
        rows = []
        for place in range(rank * local, (rank + 1) * local):
            rng = np.random.default_rng(mix_seed(self.seed, step, place, 2))
            classes = self.members[(step * self.batch_size + place) % len(self.members)]
            members = classes[int(rng.integers(len(classes)))]
            rows.append(members[int(rng.integers(len(members)))])
        return np.array(rows)

    def __call__(self, step: int, rank: int, world: int) -> UveBatch:
        rows = self.select_rows(step, rank, world)
        return {**super().__call__(step, rank, world), "labels": self.labels[torch.from_numpy(rows)]}


class ProxyClassifier(nn.Module):
    """An embedding with a proxy for every class of every task; the proxies serve training alone.

    NormSoftmax (Zhai and Wu 2019, equation 5): logits are cosines over the temperature.
    """

    def __init__(self, uve: UveModel, classes: Mapping[str, Sequence[str]], temperature: float) -> None:
        super().__init__()
        self.uve = uve
        self.temperature = temperature
        self.proxies = nn.ParameterDict(
            {task: nn.Parameter(torch.randn(len(names), uve.width)) for task, names in classes.items()}
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
    notes: Notes,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> TrainResult | None:
    """Train `model` in place on at most `params.pins` of `pin_ids`, and on the tasks whose weight is above 0.

    Args:
        model: The embedding.
        params: Of the stage: tasks and their weights, pins, crops.
        train: Of the loop.
        pins: The table of the images.
        pin_ids: From which pins are chosen, spread evenly.
        labels: By task, pin_id -> its class.
        notes: Gets a line about each task that has too few classes.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.

    Returns:
        None: no task has enough classes, and the model stays as it is.
    """
    weights = {task: weight for task, weight in params.tasks.to_dict().items() if weight > 0}
    chosen = set(select_evenly(pin_ids, params.pins))
    labels = {task: {pin: name for pin, name in labels[task].items() if pin in chosen} for task in weights}
    classes = select_classes(labels, list(weights), params.min_pins, notes)
    if not classes:
        notes.add("there was nothing to train on, so the embedding is as it started")
        return None
    side = model.config["image_size"]
    ids, images = load_square_images(pins, chosen, round(side * params.crops.zoom))
    batches = BalancedCrops(
        ids, images, side, params.crops, train.batch_size, train.seed, labels=labels, classes=classes
    )
    classifier = ProxyClassifier(model, classes, params.temperature)
    objective = ProxySoftmax({task: weights[task] for task in classes})
    return fit(classifier, objective, batches, train, checkpoints=checkpoints, log=log)
