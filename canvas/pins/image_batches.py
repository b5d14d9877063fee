"""Pictures to train on, in memory and a little larger than the crops of them; pictures to score on, in their frames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.crops import CropSpec, Pixels, crop_random_square
from canvas.pins.frames import FrameSpec, compute_view, extract_view
from canvas.pins.images import composite_on_white, decode_image
from canvas.train.data import Batch, select_batch_rows
from canvas.train.draws import mix_seed


def load_images(pins: Path, wanted: Collection[str], short_side: int) -> tuple[list[str], list[Pixels]]:
    """Ids and pixels of the `wanted` pins, their shorter side `short_side` pixels, in the order of the table.

    In memory: about 1.3 * 3 * short_side**2 bytes a pin. Raises `ValueError` if there is none.
    """
    ids, pictures = [], []
    with tqdm(total=len(wanted), desc="pictures", unit="pin") as bar:
        for batch in tables.read_batches(pins, ["pin_id", "image"]):
            for row in batch.to_pylist():
                if row["pin_id"] in wanted:
                    image = composite_on_white(decode_image(row["image"]))
                    scale = short_side / min(image.size)
                    size = max(short_side, round(image.width * scale)), max(short_side, round(image.height * scale))
                    ids.append(row["pin_id"])
                    pictures.append(np.asarray(image.resize(size, reducing_gap=3.0)))
                    bar.update()
    if not ids:
        raise ValueError(f"{pins} holds none of the {len(wanted)} pins to train on: did the filter keep any?")
    return ids, pictures


def load_square_images(pins: Path, wanted: Collection[str], side: int) -> tuple[list[str], list[Pixels]]:
    """Ids of the `wanted` pins in the order of the table, and each whole picture as a square of `side` pixels.

    In memory: 3 * side**2 bytes a pin. Raises `ValueError` if there is none.
    """
    ids, pictures = [], []
    with tqdm(total=len(wanted), desc="pictures", unit="pin") as bar:
        for batch in tables.read_batches(pins, ["pin_id", "image"]):
            for row in batch.to_pylist():
                if row["pin_id"] in wanted:
                    ids.append(row["pin_id"])
                    pictures.append(resize_to_square(decode_image(row["image"]), side))
                    bar.update()
    if not ids:
        raise ValueError(f"{pins} holds none of the {len(wanted)} pins that are wanted: did the filter keep any?")
    return ids, pictures


def select_evenly(pins: Iterable[str], count: int) -> list[str]:
    """At most `count` of the pins, spread evenly over their sorted ids."""
    ranked = sorted(pins)
    return [ranked[at] for at in np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def resize_to_square(image: Image.Image, side: int) -> Pixels:
    """The whole picture, on white, as a square [side, side, 3], whatever its aspect."""
    return np.asarray(composite_on_white(image).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0))


class CropBatches:
    """Square crops of pictures: columns `pin_id` and `images`, uint8 [B, 3, side, side]. A crop is a function of the
    seed, the step and the sample's place in it."""

    def __init__(
        self, ids: list[str], pictures: list[Pixels], side: int, crops: CropSpec, batch_size: int, seed: int
    ) -> None:
        self.ids, self.pictures = ids, pictures
        self.side, self.crops = side, crops
        self.batch_size, self.seed = batch_size, seed

    def select_rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """Which pictures make this rank's slice of batch `step`."""
        return select_batch_rows(len(self.ids), self.batch_size, self.seed, step, rank, world)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        rows = self.select_rows(step, rank, world)
        first = rank * len(rows)
        crops = [
            crop_random_square(
                self.pictures[row],
                self.side,
                self.crops,
                np.random.default_rng(mix_seed(self.seed, step, first + place)),
            )
            for place, row in enumerate(rows)
        ]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
        return {"pin_id": [self.ids[row] for row in rows], "images": images}


def batch_by_frame(pins: Path, wanted: Mapping[str, str], spec: FrameSpec, batch_size: int) -> Iterator[Batch]:
    """The `wanted` pins (pin_id -> split), each in the middle of its frame, one frame a batch: `pin_id`, `split`,
    `images` uint8 [B, 3, h, w]."""
    waiting: dict[tuple[int, int], list[tuple[str, Pixels]]] = {}
    for batch in tables.read_batches(pins, ["pin_id", "image"]):
        for row in batch.to_pylist():
            if row["pin_id"] not in wanted:
                continue
            image = composite_on_white(decode_image(row["image"]))
            view = compute_view((image.height, image.width), spec)
            waiting.setdefault(view.frame, []).append((row["pin_id"], extract_view(image, view)))
            if len(waiting[view.frame]) == batch_size:
                yield _collate_frame(waiting.pop(view.frame), wanted)
    for rest in waiting.values():
        yield _collate_frame(rest, wanted)


def _collate_frame(rows: list[tuple[str, Pixels]], split_of: Mapping[str, str]) -> Batch:
    images = torch.from_numpy(np.stack([pixels for _, pixels in rows])).permute(0, 3, 1, 2).contiguous()
    return {"pin_id": [pin for pin, _ in rows], "split": [split_of[pin] for pin, _ in rows], "images": images}
