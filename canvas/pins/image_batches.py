"""Images of pins in memory, random crops of them to train on, and batches of one frame to score on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from canvas.pins import tables
from canvas.pins.frames import CropSpec, FrameSpec, Size, compute_view, crop_random_square, extract_view
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.train.data import select_batch_rows
from canvas.train.draws import mix_seed


def load_images(pins: Path, pin_ids: Collection[str], short_side: int) -> tuple[list[str], list[Pixels]]:
    """Load pins with their shorter side at `short_side` pixels: ids and images in the order of the table. In memory:
    about 1.3 * 3 * short_side**2 bytes a pin. Raises `ValueError` if there is none."""

    def resize(image: Image.Image) -> Pixels:
        image = composite_on_white(image)
        scale = short_side / min(image.size)
        size = max(short_side, round(image.width * scale)), max(short_side, round(image.height * scale))
        return np.asarray(image.resize(size, reducing_gap=3.0))

    return _load_resized(pins, pin_ids, resize)


def load_square_images(pins: Path, pin_ids: Collection[str], side: int) -> tuple[list[str], list[Pixels]]:
    """Load whole pins as squares of `side` pixels, 3 * side**2 bytes each; as `load_images` otherwise."""
    return _load_resized(pins, pin_ids, lambda image: resize_to_square(image, side))


def _load_resized(
    pins: Path, pin_ids: Collection[str], resize: Callable[[Image.Image], Pixels]
) -> tuple[list[str], list[Pixels]]:
    rows = tqdm(tables.iterate_rows(pins, ["image"], pin_ids), total=len(pin_ids), desc="images", unit="pin")
    images = {row["pin_id"]: resize(decode_image(row["image"])) for row in rows}
    if not images:
        raise ValueError(f"{pins} holds none of the {len(pin_ids)} pins to load: did the filter keep any?")
    return list(images), list(images.values())


def select_evenly(pins: Iterable[str], count: int) -> list[str]:
    """Return at most `count` of the pins, spread evenly over their sorted ids."""
    ranked = sorted(pins)
    return [ranked[at] for at in np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)]


def resize_to_square(image: Image.Image, side: int) -> Pixels:
    """Return the whole image on white as a square [side, side, 3], whatever its aspect."""
    return np.asarray(composite_on_white(image).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0))


class CropBatch(TypedDict):
    """Crops of images, of one size."""

    pin_id: list[str]
    images: torch.Tensor  # uint8 [B, 3, h, w]


class FrameBatch(CropBatch):
    """Pins of one frame, `images` as large as it."""

    split: list[str]


class CropBatches:
    """Batches of random square crops: a crop is a function of the seed, the step and the sample's place in it."""

    def __init__(
        self, ids: list[str], images: list[Pixels], side: int, crops: CropSpec, batch_size: int, seed: int
    ) -> None:
        self.ids, self.images = ids, images
        self.side, self.crops = side, crops
        self.batch_size, self.seed = batch_size, seed

    def select_rows(self, step: int, rank: int, world: int) -> NDArray[np.int64]:
        """Select the images of this rank's slice of batch `step`."""
        return select_batch_rows(len(self.ids), self.batch_size, self.seed, step, rank, world)

    def __call__(self, step: int, rank: int, world: int) -> CropBatch:
        rows = self.select_rows(step, rank, world)
        crops = []
        for place, row in enumerate(rows, rank * len(rows)):
            rng = np.random.default_rng(mix_seed(self.seed, step, place))
            crops.append(crop_random_square(self.images[row], self.side, self.crops, rng))
        return {"pin_id": [self.ids[row] for row in rows], "images": _stack_images(crops)}


def batch_by_frame(pins: Path, split_of: Mapping[str, str], spec: FrameSpec, batch_size: int) -> Iterator[FrameBatch]:
    """Yield the pins of `split_of`, each in the middle of its frame, in batches of one frame."""
    pending: dict[Size, dict[str, Pixels]] = {}
    for row in tables.iterate_rows(pins, ["image"], split_of):
        image = composite_on_white(decode_image(row["image"]))
        view = compute_view((image.height, image.width), spec)
        pending.setdefault(view.frame, {})[row["pin_id"]] = extract_view(image, view)
        if len(pending[view.frame]) == batch_size:
            yield _collate_frame(pending.pop(view.frame), split_of)
    for rest in pending.values():
        yield _collate_frame(rest, split_of)


def _collate_frame(images: Mapping[str, Pixels], split_of: Mapping[str, str]) -> FrameBatch:
    return {
        "pin_id": list(images),
        "split": [split_of[pin] for pin in images],
        "images": _stack_images(list(images.values())),
    }


def _stack_images(images: list[Pixels]) -> torch.Tensor:
    """Stack images [h, w, 3] to [B, 3, h, w]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
