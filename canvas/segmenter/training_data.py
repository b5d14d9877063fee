"""Supervision of the segmenter: pins with the true opacity of their product, and scenes to paste products into."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.pins.masks import decode_alpha
from canvas.segmenter.model import make_square_tensor
from canvas.train.data import Batch, TensorBatches


@dataclass(frozen=True, slots=True)
class SegmentationData:
    """N pins and M scenes without a product, all uint8, squeezed into S x S."""

    pin_id: list[str]
    pixels: torch.Tensor  # [N, 3, S, S] RGB
    alpha: torch.Tensor  # [N, 1, S, S] opacity of the product; 0 where there is none
    scenes: torch.Tensor  # [M, 3, S, S] RGB


def load_segmentation_data(pins: Path, truth: Path, pin_ids: Collection[str], side: int) -> SegmentationData:
    """Load the given pins that truth knows into memory (4 * S * S bytes a pin, 3 a scene).

    Raises `ValueError` if there is none with a product, or none without.
    """
    alphas: dict[str, torch.Tensor] = {}
    scenes: list[torch.Tensor] = []
    for row in tables.iterate_rows(truth, ["alpha", "background"], pin_ids):
        alphas[row["pin_id"]] = _decode_square_alpha(row["alpha"], side)
        if row["background"] is not None:
            scenes.append(make_square_tensor(decode_image(row["background"]), side))
    ids, pixels = [], []
    for row in tables.iterate_rows(pins, ["image"], alphas):
        ids.append(row["pin_id"])
        pixels.append(make_square_tensor(decode_image(row["image"]), side))
        if not alphas[row["pin_id"]].any():
            scenes.append(pixels[-1])
    if not scenes or not any(alphas[pin_id].any() for pin_id in ids):
        raise ValueError(
            f"{truth} knows the true product of none of the {len(pin_ids)} pins to train on: name a segmenter in "
            "train_segmenter.init_from and set train_segmenter.train to null"
        )
    return SegmentationData(
        ids, torch.stack(pixels), torch.stack([alphas[pin_id] for pin_id in ids]), torch.stack(scenes)
    )


class CopyPasteBatches:
    """Batches of pins, each with a scene of its own to paste its product into (column `scene`)."""

    def __init__(self, cutouts: SegmentationData, batch_size: int, seed: int) -> None:
        columns: Batch = {"pin_id": cutouts.pin_id, "pixels": cutouts.pixels, "alpha": cutouts.alpha}
        scenes: Batch = {"pin_id": [str(row) for row in range(len(cutouts.scenes))], "scene": cutouts.scenes}
        self.pins = TensorBatches(columns, batch_size, seed)
        self.scenes = TensorBatches(scenes, batch_size, seed + 1)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        return {**self.scenes(step, rank, world), **self.pins(step, rank, world)}


def _decode_square_alpha(png: bytes | None, side: int) -> torch.Tensor:
    if png is None:
        return torch.zeros(1, side, side, dtype=torch.uint8)
    alpha = Image.fromarray((decode_alpha(png) * 255).round().astype("uint8"))
    return make_square_tensor(alpha, side)[:1]
