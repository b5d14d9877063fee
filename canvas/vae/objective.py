"""Training losses of images against their reconstructions, and the autoencoder's training.

Images are (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from canvas.features.perceptual import Distance, SpectrumDistance
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatch, CropBatches, load_images
from canvas.pins.images import bytes_to_tensor
from canvas.train.draws import Draws
from canvas.train.loop import TrainResult, fit
from canvas.train.player import Adversary
from canvas.train.spec import TrainSpec
from canvas.vae.model import PixelAutoencoder, Vae, compute_posterior, decode_latents
from canvas.vae.spec import AdversarySpec, ReconstructionSpec, VaeObjective


class ReconstructionBatch(TypedDict):
    """Images, and what became of them."""

    images: torch.Tensor  # uint8 (B, 3, H, W)
    reconstructions: torch.Tensor


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): logits (B, 1, h, w) of overlapping patches, real or reconstructed.

    `layers` halvings of the size.

    Spectral normalisation (Miyato et al. 2018) in place of batch statistics, so an image's judgment does not depend
    on its batch nor on how the batch is spread over ranks.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [3, *(width * 2 ** min(level, 3) for level in range(layers))]
        self.body = nn.Sequential()
        for wide_in, wide_out in pairwise(widths):
            self.body.append(spectral_norm(nn.Conv2d(wide_in, wide_out, 4, stride=2, padding=1)))
            self.body.append(nn.LeakyReLU(0.2))
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


def hinge_discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return the mean hinge loss of the logits of real and reconstructed images (Lim and Ye 2017)."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


class ReconstructionLoss(nn.Module):
    """The weighted loss of `spec`; `features` is the distance that its `features` weight is for."""

    def __init__(self, spec: ReconstructionSpec, features: Distance | None = None) -> None:
        super().__init__()
        if (features is None) != (spec.features == 0):
            raise ValueError(
                f"reconstruction weight features is {spec.features}, but the network is {features}: give both or none"
            )
        self.spec = spec
        self.spectrum = SpectrumDistance() if spec.spectrum else None
        self.features = features

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss, and its terms before weighting."""
        difference = images - targets
        terms = {"l1": difference.abs().mean(), "l2": difference.square().mean()}
        if self.spectrum is not None:
            terms["spectrum"] = self.spectrum(images, targets).mean()
        if self.features is not None:
            terms["features"] = self.features(images, targets).mean()
        loss = torch.stack([getattr(self.spec, name) * term for name, term in terms.items()]).sum()
        return loss, terms


class ImageLoss:
    """`ReconstructionLoss` plus, from its start step on, the generator's loss against a new `adversary`. Its output
    `reconstructions` becomes a column of the adversary's batch, a `ReconstructionBatch`."""

    def __init__(
        self, spec: ReconstructionSpec, *, features: Distance | None = None, adversary: AdversarySpec | None = None
    ) -> None:
        self.loss = ReconstructionLoss(spec, features)
        self.weight = adversary.weight if adversary else 0.0
        self.adversary = build_adversary(adversary) if adversary else None

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, terms = self.loss.to(targets.device)(images, targets)
        outputs = terms | {"reconstructions": images}
        if self.adversary is None or step < self.adversary.start_step:
            return loss, outputs
        fooled = -self.adversary.model(images).mean()  # the hinge loss of a generator
        return loss + self.weight * fooled, outputs | {"fooled": fooled}


class ReconstructionObjective:
    """Loss of an autoencoder on crops."""

    def __init__(self, loss: ImageLoss, *, kl: float) -> None:
        self.loss = loss
        self.kl = kl

    def __call__(self, vae: Vae, batch: CropBatch, draws: Draws) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        targets = bytes_to_tensor(batch["images"])
        posterior = compute_posterior(vae, targets)
        latents = posterior.mean + posterior.std * draws.normal(*posterior.mean.shape)
        reconstructions = decode_latents(vae, latents).float()
        loss, outputs = self.loss(reconstructions, targets, draws.step)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return loss + self.kl * kl, outputs | {"kl": kl}


def discriminator_objective(
    discriminator: PatchDiscriminator, batch: ReconstructionBatch, draws: Draws
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """Compute the hinge loss of the discriminator on images and their reconstructions."""
    real, fake = discriminator(bytes_to_tensor(batch["images"])), discriminator(batch["reconstructions"])
    accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
    return hinge_discriminator_loss(real, fake), {"told_apart": accuracy}


def build_adversary(spec: AdversarySpec) -> Adversary:
    """Build the PatchGAN of `spec` as the training loop alternates it."""
    model = PatchDiscriminator(spec.width, spec.layers)
    rate, start = spec.learning_rate, spec.start_step
    return Adversary(model=model, objective=discriminator_objective, learning_rate=rate, start_step=start)


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
    """Train the autoencoder in place.

    Args:
        autoencoder: As it starts.
        crops: Batches of random crops.
        objective: Weights of the loss, and the adversary's.
        spec: Of the loop.
        distance: The perceptual one, used if the objective gives it a weight.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.
        sample: The autoencoder and the step, likewise.
    """
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
