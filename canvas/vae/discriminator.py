"""PatchGAN: judges overlapping patches of a picture, real or reconstructed (Isola et al. 2017)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Logits (B, 1, h, w), one a patch, of images (B, 3, H, W) in [-1, 1]; `layers` halvings of the size.

    Spectral normalisation (Miyato et al. 2018) in place of batch statistics, so a picture's judgment does not depend
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
    """Mean hinge loss of the logits of real and reconstructed pictures (Lim and Ye 2017)."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def hinge_generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """What the autoencoder minimises: minus the mean logit of its reconstructions."""
    return -fake.mean()
