"""Labels of pins by task (scene, product, category, board), and batches in which every class has its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from canvas.pins import tables
from canvas.pins.captions import read_backgrounds
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatches
from canvas.pins.images import Pixels
from canvas.train.data import Batch, get_local_batch_size
from canvas.train.draws import mix_seed
from canvas.uve.spec import TASKS

MISSING = -1
"""Label of a pin that a task has no class for: no loss."""

Labels = Mapping[str, Mapping[str, str]]
"""Task -> pin_id -> class; pins without a class are left out."""


def read_labels(pins: Path, truth: Path, captions: Path, pin_ids: Collection[str]) -> Labels:
    """Read the classes of the pins in every one of TASKS.

    The scene is truth's; of pins that truth does not hold, it is the background of the generated caption.
    """
    labels: dict[str, dict[str, str]] = {task: {} for task in TASKS}
    for row in tables.read(pins, ["pin_id", "product_id", "category", "board"]).to_pylist():
        if row["pin_id"] in pin_ids:
            for task, column in (("product", "product_id"), ("category", "category"), ("board", "board")):
                if row[column]:
                    labels[task][row["pin_id"]] = row[column]
    scene_of = {row["pin_id"]: row["scene"] for row in tables.read(truth, ["pin_id", "scene"]).to_pylist()}
    labels["scene"] = {pin: scene for pin, scene in scene_of.items() if scene and pin in pin_ids}
    for pin, background in read_backgrounds(captions, pin_ids).items():
        if pin not in scene_of:
            labels["scene"][pin] = background
    return labels


def select_classes(labels: Labels, tasks: Sequence[str], min_pins: int) -> dict[str, list[str]]:
    """Return the classes of each of `tasks` that `min_pins` pins have, sorted; ValueError for fewer than two."""
    classes = {}
    for task in tasks:
        counts = Counter(labels[task].values())
        classes[task] = sorted(name for name, count in counts.items() if count >= min_pins)
        if len(classes[task]) < 2:
            raise ValueError(
                f"task {task} has {len(classes[task])} classes of {min_pins} pins or more: set its weight to 0, or "
                "lower train_uve.min_pins"
            )
    return classes


class BalancedCrops(CropBatches):
    """Crops of labelled images: `pin_id`, `images` uint8 [B, 3, side, side], and for each task a column of its name,
    int64 [B], class numbers or MISSING.

    Tasks take turns, each draws one of its classes, and the class one of its pins: rare classes come as often as
    frequent ones. What a sample is, is a function of the seed, the step and its place.
    """

    def __init__(
        self,
        ids: list[str],
        pictures: list[Pixels],
        side: int,
        crops: CropSpec,
        batch_size: int,
        seed: int,
        *,
        labels: Labels,
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__(ids, pictures, side, crops, batch_size, seed)
        self.labels: dict[str, np.ndarray] = {}
        self.members: dict[str, list[np.ndarray]] = {}  # task -> rows of each class
        for task, names in classes.items():
            number = {name: at for at, name in enumerate(names)}
            numbers = np.array([number.get(labels[task].get(pin, ""), MISSING) for pin in ids])
            self.labels[task] = numbers
            order = np.argsort(numbers, kind="stable")
            ends = np.searchsorted(numbers[order], np.arange(len(names) + 1))
            members = [order[start:end] for start, end in pairwise(ends)]
            self.members[task] = [rows for rows in members if len(rows)]

    def select_rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """Return the rows of the images of this rank's slice of batch `step`."""
        local = get_local_batch_size(self.batch_size, world)
        tasks = list(self.members)
        chosen = []
        for place in range(rank * local, (rank + 1) * local):
            rng = np.random.default_rng(mix_seed(self.seed, step, place, 2))
            members = self.members[tasks[(step * self.batch_size + place) % len(tasks)]]
            rows = members[int(rng.integers(len(members)))]
            chosen.append(rows[int(rng.integers(len(rows)))])
        return np.array(chosen)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        rows = self.select_rows(step, rank, world)
        batch = super().__call__(step, rank, world)
        return {**batch, **{task: torch.from_numpy(labels[rows]) for task, labels in self.labels.items()}}
