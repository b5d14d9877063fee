"""The network of the judge of defects: frozen feature maps in, the chance of a defect at every place out.

A defect is small. Statistics of a whole image, which tell scenes apart, drown it in what the image shows; so the
network is told place by place what was corrupted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from torch.nn import functional as F

from canvas.train.data import TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import fit
from canvas.train.spec import build_plain_spec

EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 8, 16, 3e-3, 0.05

TOP = 6
"""Places, the most suspect, whose mean is an image's score."""

CHANGED = 0.15
"""Share of a place's pixels from which it shows the corruption."""

NORMALIZED = 128  # pairs, about, that mean and deviation of a channel are of
WIDTH, DROPOUT = 32, 0.1
PLACE_WEIGHT = 5.0  # of corrupted places in the loss: they are few
IMAGE_WEIGHT = 0.5  # of whole images in the loss


class DefectPairs(TypedDict):
    """N real images and their corruptions."""

    pin_id: list[str]
    real: torch.Tensor  # float16 [N, C, g, g], feature maps
    corrupted: torch.Tensor  # the same
    changed: torch.Tensor  # float32 [N, g, g], share of each place's pixels that the corruption changed


class DefectNetwork(nn.Module):
    """Feature maps (B, C, g, g) -> logits (B, g, g): is there a defect?"""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("scale", 1 / (deviation[:, None, None] + 1e-3))
        self.layers = nn.Sequential(
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(len(mean), WIDTH, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 1, 1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers((maps.float() - self.mean) * self.scale)
        return logits[:, 0]


def pool_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return an image's logit (B,): the mean of its TOP places of (B, g, g)."""
    return logits.flatten(1).topk(TOP, dim=1).values.mean(dim=1)


def compute_loss(
    network: DefectNetwork, batch: DefectPairs, draws: Draws
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the cross-entropy of places and of whole images, half of which are real."""
    maps = torch.cat([batch["real"], batch["corrupted"]])
    corrupted = (batch["changed"] > CHANGED).float()
    places = torch.cat([torch.zeros_like(corrupted), corrupted])
    mirrored = torch.cat([draws.uniform(len(draws)) < 0.5] * 2)
    maps, places = (
        torch.where(mirrored.view(-1, *[1] * (values.ndim - 1)), values.flip(-1), values) for values in (maps, places)
    )
    logits = network(maps)
    by_place = F.binary_cross_entropy_with_logits(logits, places, weight=1 + (PLACE_WEIGHT - 1) * places)
    whole = torch.cat([torch.zeros(len(corrupted)), torch.ones(len(corrupted))]).to(logits.device)
    return by_place + IMAGE_WEIGHT * F.binary_cross_entropy_with_logits(pool_logits(logits), whole), {}


def train_defect_network(pairs: DefectPairs, seed: int, device: torch.device) -> DefectNetwork:
    """Train the network on pairs of images; the same pairs and seed give the same one."""
    count = len(pairs["pin_id"])
    maps = torch.cat([pairs[column][:: max(1, count // NORMALIZED)] for column in ("real", "corrupted")]).float()
    mean, deviation = maps.mean((0, 2, 3)), maps.std((0, 2, 3))
    batch_size = min(BATCH_SIZE, count)
    steps = EPOCHS * count // batch_size
    spec = build_plain_spec(
        steps=steps,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        warmup_steps=steps // 4,
        weight_decay=WEIGHT_DECAY,
        channels_last=True,
        seed=seed,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DefectNetwork(mean, deviation).to(device)
    with tempfile.TemporaryDirectory() as folder:
        batches = TensorBatches(pairs, batch_size, seed)
        fit(network, compute_loss, batches, spec, checkpoints=Path(folder), log=lambda metrics, step: None)
    return network.eval()
