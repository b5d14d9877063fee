"""Training of a text-image encoder: batches of images with captions, the contrastive objective, and a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import open_clip
import torch
from torch import distributed, nn
from torch.distributed._functional_collectives import all_gather_single_autograd
from torch.nn import functional as F

from canvas.clip.model import TextTower
from canvas.clip.spec import ClipSpec
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatches, load_images
from canvas.pins.images import bytes_to_tensor
from canvas.train.draws import mix_seed
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec


def train_clip_model(
    clip: open_clip.CLIP,
    name: str,
    spec: ClipSpec,
    pins: Path,
    captions: Mapping[str, Sequence[str]],
    crops: CropSpec,
    train: TrainSpec,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> TrainResult:
    """Train a text-image encoder in place on crops of images, each with one of its captions, drawn anew every time.

    Args:
        clip: The encoder.
        name: Of its folder among the `checkpoints`, and the prefix of its metrics.
        spec: That it was built by.
        pins: The table of the images.
        captions: pin_id -> its captions; pins without any are not read.
        crops: How much of an image a crop shows.
        train: Of the loop.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.
    """

    def log_named(values: Mapping[str, float], step: int) -> None:
        log({f"{name}_{key}": value for key, value in values.items()}, step)

    ids, images = load_images(pins, captions, round(spec.image_size * crops.zoom))
    tower = TextTower.from_clip(clip, spec)
    tokens = {pin_id: tower.tokenize(captions[pin_id]) for pin_id in ids}
    batches = CropBatches(ids, images, spec.image_size, crops, train.batch_size, train.seed)
    prepare = clip.visual.preprocess_cfg
    captioned = CaptionedBatches(batches, tokens, prepare["mean"], prepare["std"])
    return fit(clip, contrastive_objective, captioned, train, checkpoints=checkpoints / name, log=log_named)


class ClipBatch(TypedDict):
    """B images, each with a caption of L tokens."""

    pin_id: list[str]
    pixels: torch.Tensor  # float32 [B, 3, S, S], normalised by the encoder's mean and std
    tokens: torch.Tensor  # int64 [B, L]


class CaptionedBatches:
    """Crops of images, each with one of its captions, drawn anew every epoch."""

    def __init__(
        self, crops: CropBatches, tokens: Mapping[str, torch.Tensor], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.crops = crops
        self.tokens = tokens  # pin_id -> (K, L)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, step: int, rank: int, world: int) -> ClipBatch:
        batch = self.crops(step, rank, world)
        ids = batch["pin_id"]
        tokens = []
        for place, pin_id in enumerate(ids, start=rank * len(ids)):
            rng = np.random.default_rng(mix_seed(self.crops.seed, step, place, 1))
            tokens.append(self.tokens[pin_id][int(rng.integers(len(self.tokens[pin_id])))])
        pixels = ((bytes_to_tensor(batch["images"]) + 1) / 2 - self.mean) / self.std
        return {"pin_id": ids, "pixels": pixels, "tokens": torch.stack(tokens)}


def contrastive_objective(
    clip: nn.Module, batch: ClipBatch, draws: object
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return CLIP's symmetric cross-entropy (Radford et al. 2021, figure 3), its accuracy and temperature.

    Texts that occur more than once in the batch are all right answers for each other's images. Every rank has the loss
    of the pairs of all ranks, as one process would; DDP's mean of its gradients is the whole gradient, since those of
    the gathered embeddings are summed over the ranks.
    """
    images, texts, temperature = clip(batch["pixels"], batch["tokens"])[:3]
    images, texts, tokens = (gather_ranks(rows) for rows in (images, texts, batch["tokens"]))
    logits = temperature * images @ texts.T
    same = (tokens[:, None] == tokens[None, :]).all(dim=-1).float()
    answers = same / same.sum(dim=1, keepdim=True)
    loss = (F.cross_entropy(logits, answers) + F.cross_entropy(logits.T, answers)) / 2
    right = (same.gather(1, logits.argmax(dim=1, keepdim=True)) > 0).float().mean()
    return loss, {"accuracy": right, "temperature": temperature.detach()}


def gather_ranks(rows: torch.Tensor) -> torch.Tensor:
    """Gather the rows (B, ...) of every rank, in their order; gradients flow back to the rank that they came from."""
    world = distributed.group.WORLD  # None: there is one process
    if world is None or world.size() == 1:
        return rows
    return all_gather_single_autograd(rows.contiguous(), 0, world)
