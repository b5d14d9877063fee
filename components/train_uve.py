"""Stage `train_uve`: labelled pictures in, one embedding for all their labels out."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canvas.pins.crops import CropSpec
from canvas.ranges import Count, Positive
from canvas.train.spec import TrainableParams, Training, TrainSpec
from canvas.uve.spec import TaskWeights, UveSpec
from components.artifacts import Captions, Clip, Kept, Pins, Truth, Uve
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from canvas.pins.crops import Pixels
    from canvas.train.loop import TrainResult
    from canvas.uve.model import UveModel
    from canvas.uve.training_data import Labels

SCORED_SPLITS = {
    "scene": ("unseen_view", "unseen_both"),
    "product": ("unseen_product", "unseen_both"),
    "category": ("unseen_product", "unseen_both"),
    "board": ("unseen_product", "unseen_view", "unseen_both"),
}
"""Splits that each task is scored on: nobody trained on those views, or those products."""

NEIGHBOUR_COUNT = 6
"""Of a pin on the sheet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainUveParams(TrainableParams):
    tasks: TaskWeights
    pins: Count  # to train on, at most: they are held in memory
    min_pins: Count  # of a class; pins of smaller ones count as unlabelled
    temperature: Positive  # of the softmax over classes
    crops: CropSpec
    scored_pins: Count  # held-out ones, at most
    catalogue_pins: Count  # of the train split that they are searched among, too, at most
    score_batch: Count
    sheet_pins: Count


@stage(machine="gpus")
def train_uve(
    train_uve: TrainUveParams,
    training: Training,
    uve: UveSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    captions: Input[Captions],
    clip: Input[Clip],
    model: Output[Uve],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train one embedding on scene, product, category and board; score who finds whom among held-out pins.

    The sheet shows held-out pins on the left, the held-out pins nearest to them beside them.
    """
    import torch

    from canvas.clip.model import load_clip
    from canvas.device import default_device
    from canvas.pins import tables
    from canvas.pins.image_batches import load_square_images, select_evenly
    from canvas.pins.images import encode_png
    from canvas.uve.model import build_uve
    from canvas.uve.table import choose_input_side, embed_arrays
    from canvas.uve.training_data import read_labels

    clock = time.perf_counter()
    if train_uve.train is None and uve.init_from is None:
        raise ValueError("train_uve.train is null: the embedding needs training, or name its uve.init_from")
    split_of = tables.read_kept_splits(pins.path, kept.path)
    labels = read_labels(pins.path, truth.path, captions.path, split_of.keys())
    torch.manual_seed(training.seed)
    network = build_uve(uve)
    figures: dict[str, Any] = {}
    curve: Sequence[tuple[int, float]] = ()
    if train_uve.train is not None:
        fitted = _train_embedding(
            network, train_uve, training.resolve(train_uve.train), labels, split_of, pins.path, log, scratch.path
        )
        figures["images_per_second"] = fitted.images_per_second
        curve = fitted.losses
    network.eval().save_pretrained(model.path)
    fitted_at = time.perf_counter()

    network.to(default_device())
    tower = load_clip(clip.path / "second").eval().to(default_device())
    held_out = select_evenly([pin for pin, split in split_of.items() if split != "train"], train_uve.scored_pins)
    catalogue = select_evenly([pin for pin, split in split_of.items() if split == "train"], train_uve.catalogue_pins)
    ids, pictures = load_square_images(pins.path, {*held_out, *catalogue}, choose_input_side(network, tower))
    found = embed_arrays(network, tower, pictures, train_uve.score_batch)
    figures |= _compute_recalls(ids, found, held_out, labels, split_of)
    image = _sheet(ids, pictures, found[0], train_uve.sheet_pins, held_out or ids, labels)
    figures["parameters"] = sum(weight.numel() for weight in network.parameters())
    figures["seconds"] = {"train": fitted_at - clock, "score": time.perf_counter() - fitted_at}
    metrics.write(figures)
    losses.write(curve)
    sheet.write(encode_png(image))


def _train_embedding(
    network: UveModel,
    params: TrainUveParams,
    spec: TrainSpec,
    labels: Labels,
    split_of: Mapping[str, str],
    pins: Path,
    log: StepLog,
    scratch: Path,
) -> TrainResult:
    """Train `network` in place on the tasks of `params` whose weight is above 0."""
    from canvas.pins.image_batches import load_square_images, select_evenly
    from canvas.train.loop import fit
    from canvas.uve.objective import ProxyClassifier, ProxySoftmax
    from canvas.uve.training_data import BalancedCrops, select_classes

    weights = {task: weight for task, weight in params.tasks.to_dict().items() if weight > 0}
    wanted = set(select_evenly([pin for pin, split in split_of.items() if split == "train"], params.pins))
    known = {task: {pin: name for pin, name in labels[task].items() if pin in wanted} for task in weights}
    classes = select_classes(known, list(weights), params.min_pins)
    side = network.config["image_size"]
    ids, pictures = load_square_images(pins, wanted, round(side * params.crops.zoom))
    batches = BalancedCrops(
        ids,
        pictures,
        side,
        params.crops,
        spec.batch_size,
        spec.seed,
        labels=known,
        classes=classes,
    )
    return fit(
        ProxyClassifier(network, classes, params.temperature),
        ProxySoftmax(weights),
        batches,
        spec,
        checkpoints=scratch,
        log=log.metrics,
    )


def _compute_recalls(
    ids: Sequence[str],
    found: tuple[NDArray[np.float32], NDArray[np.float32]],
    held_out: Collection[str],
    labels: Labels,
    split_of: Mapping[str, str],
) -> dict[str, Any]:
    """Recall by embedding ("uve", "uve_code", "clip") and task, of the held-out pins of its SCORED splits: among each
    other, and among all `ids` ("catalogue"). `found`: UVE and CLIP of `ids`."""
    from canvas.uve.model import pack_codes, unpack_codes
    from evaluation.measures.neighbours import compute_label_recall

    vectors = {"uve": found[0], "uve_code": unpack_codes(pack_codes(found[0])), "clip": found[1]}
    figures: dict[str, Any] = {name: {} for name in vectors}
    for task, splits in SCORED_SPLITS.items():
        queries = [at for at, pin in enumerate(ids) if pin in held_out and split_of[pin] in splits]
        known = [labels[task].get(pin) for pin in ids]
        for name, of in vectors.items():
            figures[name][task] = {
                "held_out": compute_label_recall(of[queries], [known[at] for at in queries]),
                "catalogue": compute_label_recall(of, known, queries),
            }
    return figures


def _sheet(
    ids: Sequence[str],
    pictures: Sequence[Pixels],
    vectors: NDArray[np.float32],
    count: int,
    queries: Sequence[str],
    labels: Labels,
) -> Image.Image:
    """A row a query: the pin, then the pins nearest to it, each with its scene and product."""
    from PIL import Image

    from canvas.pins.image_batches import select_evenly
    from canvas.pins.images import draw_contact_sheet
    from evaluation.measures.neighbours import find_nearest

    place = {pin: at for at, pin in enumerate(ids)}
    rows = []
    for pin in select_evenly(queries, count):
        rows += [place[pin], *find_nearest(vectors, place[pin], min(NEIGHBOUR_COUNT, len(ids) - 1))]
    words = [
        f"{labels['scene'].get(ids[row], '-')} / {labels['product'].get(ids[row], '-').rpartition('-')[2]}"
        for row in rows
    ]
    shown = [Image.fromarray(pictures[row]) for row in rows]
    return draw_contact_sheet(shown, words, columns=1 + min(NEIGHBOUR_COUNT, len(ids) - 1), cell=128)
