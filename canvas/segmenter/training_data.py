"""Supervision of the segmenter: pins with the true opacity of their product, and scenes to paste products into."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.pins.masks import decode_alpha
from canvas.segmenter.model import make_square_tensor
from canvas.train.data import select_batch_rows
from canvas.train.spec import TrainSpec


class SegmentationBatch(TypedDict):
    """B pins, each with a scene to paste its product into: whole images as squares, uint8."""

    pin_id: list[str]
    pixels: torch.Tensor  # [B, 3, S, S] RGB
    alpha: torch.Tensor  # [B, 1, S, S] opacity of the product; 0 where there is none
    scene: torch.Tensor  # [B, 3, S, S] RGB


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyPasteBatches:
    """Batches of pins in memory, N of them, with M scenes without a product, each shuffled by itself."""

    pin_id: list[str]
    pixels: torch.Tensor  # [N, 3, S, S]
    alpha: torch.Tensor  # [N, 1, S, S]
    scenes: torch.Tensor  # [M, 3, S, S]
    batch_size: int
    seed: int

    def __call__(self, step: int, rank: int, world: int) -> SegmentationBatch:
        rows, scenes = (
            torch.from_numpy(select_batch_rows(count, self.batch_size, seed, step, rank, world))
            for count, seed in ((len(self.pin_id), self.seed), (len(self.scenes), self.seed + 1))
        )
        return {
            "pin_id": [self.pin_id[row] for row in rows],
            "pixels": self.pixels[rows],
            "alpha": self.alpha[rows],
            "scene": self.scenes[scenes],
        }


def load_copy_paste_batches(
    pins: Path, truth: Path, pin_ids: Collection[str], side: int, spec: TrainSpec
) -> CopyPasteBatches:
    """Load those of `pin_ids` that truth knows into memory, 4 * side**2 bytes a pin and 3 * side**2 a scene.

    Raises:
        ValueError: There is none with a product, or none without.
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
    return CopyPasteBatches(
        pin_id=ids,
        pixels=torch.stack(pixels),
        alpha=torch.stack([alphas[pin_id] for pin_id in ids]),
        scenes=torch.stack(scenes),
        batch_size=spec.batch_size,
        seed=spec.seed,
    )


def _decode_square_alpha(png: bytes | None, side: int) -> torch.Tensor:
    if png is None:
        return torch.zeros(1, side, side, dtype=torch.uint8)
    alpha = Image.fromarray((decode_alpha(png) * 255).round().astype("uint8"))
    return make_square_tensor(alpha, side)[:1]
