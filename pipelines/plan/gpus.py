"""What each GPU holds that trains the conditional decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from canvas.features.perceptual import ClipFeatures, FeatureDistance
from canvas.vae.objective import ImageLoss
from pipelines.plan.activations import Activations, measure_activations
from pipelines.plan.memory import SizeRow, append_total, count_parameters
from pipelines.plan.profile import Models, Profile, compute_images_per_pass


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderTraining:
    """The conditional decoder and what its loss needs, on the meta device."""

    decoder: nn.Module
    features: nn.Module | None  # the frozen network
    loss: ImageLoss
    side: int  # pixels of an image
    latents: tuple[int, int, int]

    @classmethod
    def build(cls, profile: Profile, models: Models) -> DecoderTraining:
        """Return what the profile's stage train_decoder trains with."""
        spec, perceptual, side = profile.train_decoder, profile.perceptual, profile.frames.side
        tower = models.clips[("first", "second").index(perceptual.encoder)]
        with torch.device("meta"):
            features = FeatureDistance(ClipFeatures(tower, perceptual.layers)) if spec.loss.features else None
            loss = ImageLoss(spec.loss, features=features, adversary=spec.adversary)
        cells = side // profile.vae.factor
        latents = profile.vae.latent_channels, cells, cells
        return cls(decoder=models.decoder, features=features, loss=loss, side=side, latents=latents)

    @property
    def discriminator(self) -> nn.Module | None:
        """The discriminator, if the loss has one."""
        return self.loss.adversary.model if self.loss.adversary else None

    def compute_loss(self) -> None:
        """Run the decoder and its loss on one image."""
        with torch.device("meta"):
            images, mask = (torch.empty(1, channels, self.side, self.side) for channels in (3, 1))
            decoded = self.decoder(torch.empty(1, *self.latents), images, mask, mask)
            self.loss(decoded, images, self.loss.adversary.start_step if self.loss.adversary else 0)

    def measure_activations(self) -> Activations:
        """Return the activations of one image, the loss included."""
        networks = nn.ModuleList(filter(None, (self.decoder, self.discriminator, self.features)))
        return measure_activations(networks, self.compute_loss)


def build_replicated_rows(training: DecoderTraining, activations: Activations, images: int, gpus: int) -> list[SizeRow]:
    """Return what a GPU holds that trains the decoder, under DDP or alone: all in float32, and autocast's copies."""
    parameters, copies = count_parameters(training.decoder), " x 2 (DDP's buckets)" if gpus > 1 else ""
    rows = [
        ("weights", f"{parameters:,} x (4 + 2) bytes: and autocast's copies", parameters * 6.0),
        ("gradients", f"{parameters:,} x 4 bytes{copies}", parameters * (8.0 if copies else 4.0)),
        ("optimizer", f"{parameters:,} x 2 moments x 4 bytes", parameters * 8.0),
    ]
    if training.discriminator is not None:
        count, each = count_parameters(training.discriminator), 22 if copies else 18
        rows.append(("discriminator", f"{count:,} x {each} bytes: likewise", count * float(each)))
    if training.features is not None:
        count = count_parameters(training.features)
        rows.append(("loss's network", f"{count:,} x (4 + 2) bytes: frozen", count * 6.0))
    rows.append(("activations", f"{images} x {activations.bytes:,} bytes", float(images * activations.bytes)))
    return append_total(rows)


def compute_decoder_gpus(profile: Profile, gpus: int) -> tuple[int, int]:
    """Return the GPUs that train the decoder, of so many of its machine, and the images that each works on at once."""
    assert profile.train_decoder.train is not None, "a decoder that is not trained needs none"
    train = profile.training.resolve(profile.train_decoder.train)
    gpus = gpus if train.parallel == "ddp" else 1
    return gpus, compute_images_per_pass("train_decoder", train, gpus)
