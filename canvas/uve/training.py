"""A training run of the unified visual embedding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from canvas.pins.image_batches import load_square_images, select_evenly
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.uve.model import UveModel
from canvas.uve.objective import ProxyClassifier, ProxySoftmax
from canvas.uve.spec import TrainUveParams
from canvas.uve.training_data import BalancedCrops, Labels, select_classes


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
