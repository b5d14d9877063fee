"""Training losses of images against their reconstructions. Images are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from canvas.features.perceptual import Distance, SpectrumDistance
from canvas.pins.images import bytes_to_tensor
from canvas.vae.discriminator import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss
from canvas.vae.spec import AdversarySpec, ReconstructionSpec

if TYPE_CHECKING:
    from canvas.train.data import Batch
    from canvas.train.draws import Draws
    from canvas.train.player import Adversary


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
    """`ReconstructionLoss` plus, from its start step on, the generator's loss against a new `adversary`.

    Its output `reconstructions` becomes a column of the batch that `discriminator_objective` reads.
    """

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
        fooled = hinge_generator_loss(self.adversary.model(images))
        return loss + self.weight * fooled, outputs | {"fooled": fooled}


class ReconstructionObjective:
    """Loss of an autoencoder on batches with `images`, uint8 (B, 3, H, W)."""

    def __init__(self, loss: ImageLoss, *, kl: float) -> None:
        if kl < 0:
            raise ValueError(f"the KL weight is {kl}: it must be 0 or more")
        self.loss = loss
        self.kl = kl

    def __call__(self, vae: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        targets = bytes_to_tensor(torch.as_tensor(batch["images"]))
        posterior: DiagonalGaussianDistribution = vae.encode(targets).latent_dist  # type: ignore[operator]
        latents = posterior.mean + posterior.std * draws.normal(*posterior.mean.shape)
        reconstructions = vae.decode(latents).sample.float()  # type: ignore[operator]
        loss, outputs = self.loss(reconstructions, targets, draws.step)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return loss + self.kl * kl, outputs | {"kl": kl}


def discriminator_objective(
    discriminator: nn.Module, batch: Batch, draws: Draws
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """Compute the hinge loss of the discriminator on `images` and the `reconstructions` of them."""
    real = discriminator(bytes_to_tensor(torch.as_tensor(batch["images"])))
    fake = discriminator(torch.as_tensor(batch["reconstructions"]))
    accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
    return hinge_discriminator_loss(real, fake), {"told_apart": accuracy}


def build_adversary(spec: AdversarySpec) -> Adversary:
    """Build the PatchGAN of `spec` as the training loop alternates it."""
    from canvas.train.player import Adversary

    return Adversary(
        model=PatchDiscriminator(spec.width, spec.layers),
        objective=discriminator_objective,
        start_step=spec.start_step,
        learning_rate=spec.learning_rate,
    )
