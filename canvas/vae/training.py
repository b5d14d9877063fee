"""Training of the autoencoder on crops of pins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from canvas.features.perceptual import Distance
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatches, load_images
from canvas.pins.images import bytes_to_tensor
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec
from canvas.vae.model import PixelAutoencoder, Vae
from canvas.vae.objective import ImageLoss, ReconstructionObjective
from canvas.vae.spec import VaeObjective


def load_crops(pins: Path, pin_ids: Collection[str], side: int, crops: CropSpec, spec: TrainSpec) -> CropBatches:
    """Load those pins into memory, for batches of random square crops of `side` pixels."""
    ids, images = load_images(pins, pin_ids, round(side * crops.zoom))
    return CropBatches(ids, images, side, crops, spec.batch_size, spec.seed)


def fit_patches_to_epoch(autoencoder: Vae, crops: CropBatches) -> None:
    """Start a `PixelAutoencoder` at the principal components of its first epoch; other kinds stay as they are."""
    if isinstance(autoencoder, PixelAutoencoder):
        epoch = range(max(len(crops.ids) // crops.batch_size, 1))
        autoencoder.fit_patches(lambda: (bytes_to_tensor(crops(step, 0, 1)["images"]) for step in epoch))


def fit_autoencoder(
    autoencoder: Vae,
    crops: CropBatches,
    objective: VaeObjective,
    spec: TrainSpec,
    distance: Distance,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[Vae, int], None],
) -> TrainResult:
    """Train the autoencoder in place; `distance` is the perceptual one, used if the objective gives it a weight."""
    features = distance if objective.loss.features else None
    loss = ImageLoss(objective.loss, features=features, adversary=objective.adversary)
    return fit(
        autoencoder,
        ReconstructionObjective(loss, kl=objective.kl),
        crops,
        spec,
        checkpoints=checkpoints,
        log=log,
        sample=sample,
        adversary=loss.adversary,
    )
