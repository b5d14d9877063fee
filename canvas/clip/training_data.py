"""Pictures with their captions, to train text-image encoders on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from canvas.pins import tables
from canvas.pins.image_batches import CropBatches
from canvas.pins.pixels import bytes_to_tensor
from canvas.train.data import Batch
from canvas.train.draws import mix_seed


def read_captions(captions: Path, wanted: Collection[str], sources: Sequence[str]) -> dict[str, list[str]]:
    """pin_id -> its captions from `sources`, in their order; pins without any are left out.

    Raises `ValueError` if no wanted pin has one.
    """
    rank = {source: place for place, source in enumerate(sources)}
    found: dict[str, list[tuple[int, str]]] = {}
    for row in tables.read(captions, ["pin_id", "source", "caption"]).to_pylist():
        if row["pin_id"] in wanted and row["source"] in rank:
            found.setdefault(row["pin_id"], []).append((rank[row["source"]], row["caption"]))
    if not found:
        raise ValueError(f"no pin has a caption from {list(sources)}: name sources that {captions} holds")
    return {pin: [caption for _, caption in sorted(of_pin)] for pin, of_pin in found.items()}


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
