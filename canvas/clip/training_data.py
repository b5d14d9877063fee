"""Images with their captions, to train text-image encoders on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from canvas.pins.image_batches import CropBatches
from canvas.pins.pixels import bytes_to_tensor
from canvas.train.data import Batch
from canvas.train.draws import mix_seed


class CaptionedBatches:
    """Crops of pictures, each with one of its captions drawn: columns `pin_id`, `pixels` float [B, 3, S, S] with the
    encoder's `mean` and `std` taken out, `tokens` int64 [B, L]."""

    def __init__(
        self,
        crops: CropBatches,
        tokens: Mapping[str, torch.Tensor],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.crops = crops
        self.tokens = tokens  # pin_id -> (K, L)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        batch = self.crops(step, rank, world)
        images, ids = batch["images"], batch["pin_id"]
        assert isinstance(images, torch.Tensor)
        first = rank * len(ids)
        chosen = []
        for place, pin in enumerate(ids):
            rng = np.random.default_rng(mix_seed(self.crops.seed, step, first + place, 1))
            chosen.append(self.tokens[pin][int(rng.integers(len(self.tokens[pin])))])
        pixels = ((bytes_to_tensor(images) + 1) / 2 - self.mean) / self.std
        return {"pin_id": ids, "pixels": pixels, "tokens": torch.stack(chosen)}
