"""Pictures to train on, in memory and a little larger than the crops of them; pictures to score on, in their frames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.crops import CropSpec, Pixels, cropped
from canvas.pins.frames import FrameSpec, view_of, viewed
from canvas.pins.images import decode, on_white
from canvas.train.data import Batch, batch_rows
from canvas.train.draws import mixed


def load_pictures(pins: Path, wanted: Collection[str], short_side: int) -> tuple[list[str], list[Pixels]]:
    """Ids and pixels of the `wanted` pins, their shorter side `short_side` pixels, in the order of the table.

    In memory: about 1.3 * 3 * short_side**2 bytes a pin. Raises `ValueError` if there is none.
    """
    ids, pictures = [], []
    with tqdm(total=len(wanted), desc="pictures", unit="pin") as bar:
        for batch in tables.batches(pins, ["pin_id", "image"]):
            for row in batch.to_pylist():
                if row["pin_id"] in wanted:
                    image = on_white(decode(row["image"]))
                    scale = short_side / min(image.size)
                    size = max(short_side, round(image.width * scale)), max(short_side, round(image.height * scale))
                    ids.append(row["pin_id"])
                    pictures.append(np.asarray(image.resize(size, reducing_gap=3.0)))
                    bar.update()
    if not ids:
        raise ValueError(f"{pins} holds none of the {len(wanted)} pins to train on: did the filter keep any?")
    return ids, pictures


def load_squeezed(pins: Path, wanted: Collection[str], side: int) -> tuple[list[str], list[Pixels]]:
    """Ids of the `wanted` pins in the order of the table, and each whole picture as a square of `side` pixels.

    In memory: 3 * side**2 bytes a pin. Raises `ValueError` if there is none.
    """
    ids, pictures = [], []
    with tqdm(total=len(wanted), desc="pictures", unit="pin") as bar:
        for batch in tables.batches(pins, ["pin_id", "image"]):
            for row in batch.to_pylist():
                if row["pin_id"] in wanted:
                    ids.append(row["pin_id"])
                    pictures.append(squeezed(decode(row["image"]), side))
                    bar.update()
    if not ids:
        raise ValueError(f"{pins} holds none of the {len(wanted)} pins that are wanted: did the filter keep any?")
    return ids, pictures


def spread(pins: Iterable[str], count: int) -> list[str]:
    """At most `count` of the pins, spread evenly over their sorted ids."""
    ranked = sorted(pins)
    return [ranked[at] for at in np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def squeezed(image: Image.Image, side: int) -> Pixels:
    """The whole picture, on white, as a square [side, side, 3], whatever its aspect."""
    return np.asarray(on_white(image).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0))


class CropBatches:
    """Square crops of pictures: columns `pin_id` and `images`, uint8 [B, 3, side, side]. A crop is a function of the
    seed, the step and the sample's place in it."""

    def __init__(
        self, ids: list[str], pictures: list[Pixels], side: int, crops: CropSpec, batch_size: int, seed: int
    ) -> None:
        self.ids, self.pictures = ids, pictures
        self.side, self.crops = side, crops
        self.batch_size, self.seed = batch_size, seed

    def rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """Which pictures make this rank's slice of batch `step`."""
        return batch_rows(len(self.ids), self.batch_size, self.seed, step, rank, world)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        rows = self.rows(step, rank, world)
        first = rank * len(rows)
        crops = [
            cropped(
                self.pictures[row], self.side, self.crops, np.random.default_rng(mixed(self.seed, step, first + place))
            )
            for place, row in enumerate(rows)
        ]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
        return {"pin_id": [self.ids[row] for row in rows], "images": images}


def framed(pins: Path, wanted: Mapping[str, str], spec: FrameSpec, batch_size: int) -> Iterator[Batch]:
    """The `wanted` pins (pin_id -> split), each in the middle of its frame, one frame a batch: `pin_id`, `split`,
    `images` uint8 [B, 3, h, w]."""
    waiting: dict[tuple[int, int], list[tuple[str, Pixels]]] = {}
    for batch in tables.batches(pins, ["pin_id", "image"]):
        for row in batch.to_pylist():
            if row["pin_id"] not in wanted:
                continue
            image = on_white(decode(row["image"]))
            view = view_of((image.height, image.width), spec)
            waiting.setdefault(view.frame, []).append((row["pin_id"], viewed(image, view)))
            if len(waiting[view.frame]) == batch_size:
                yield _framed_batch(waiting.pop(view.frame), wanted)
    for rest in waiting.values():
        yield _framed_batch(rest, wanted)


def _framed_batch(rows: list[tuple[str, Pixels]], split_of: Mapping[str, str]) -> Batch:
    images = torch.from_numpy(np.stack([pixels for _, pixels in rows])).permute(0, 3, 1, 2).contiguous()
    return {"pin_id": [pin for pin, _ in rows], "split": [split_of[pin] for pin, _ in rows], "images": images}
