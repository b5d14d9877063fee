"""Pins whose scene is known, as small squares: what a judge of scenes learns from and is checked on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins import tables
from canvas.pins.frames import FrameSpec, compute_view, extract_view
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import Pixels, read_images

Views = NDArray[np.uint8]  # [N, side, side, 3]


def crop_center_square(image: Image.Image, side: int) -> Pixels:
    """Return the middle square of an image at `side` pixels: [side, side, 3], or [side, side] of a grey one."""
    square = FrameSpec(side=side, buckets=((side, side),), hole_inflation=0)
    return extract_view(image, compute_view((image.height, image.width), square))


def stack_views(images: Sequence[Image.Image], side: int) -> Views:
    """Return the middle squares of images at `side` pixels, [N, side, side, 3], or [N, side, side] of grey ones."""
    squares = [crop_center_square(image, side) for image in images]
    return np.stack(squares) if squares else np.zeros((0, side, side, 3), np.uint8)


def list_scenes(truth: Path) -> list[str]:
    """List the scenes that truth names, sorted."""
    return sorted({row["scene"] for row in tables.read(truth, ["scene"]).to_pylist() if row["scene"]})


def load_scene_views(
    pins: Path, kept: Path, truth: Path, *, splits: Collection[str], side: int, count: int, emptied: bool
) -> tuple[Views, list[str]]:
    """Load kept pins whose scene is known, spread evenly, and their scenes.

    Args:
        pins: Table of the pins.
        kept: Table of what the filter says of them.
        truth: Table of their scenes.
        splits: Of which they are.
        side: Of the square views, pixels.
        count: How many at most.
        emptied: Whether a view is the scene before the product came in, where truth has it; else it is the pin itself.
    """
    split_of = tables.read_kept_splits(pins, kept)
    scene_of = {
        row["pin_id"]: row["scene"]
        for row in tables.read(truth, ["pin_id", "scene"]).to_pylist()
        if row["scene"] and split_of.get(row["pin_id"]) in splits
    }
    chosen = set(select_evenly(scene_of, count))
    backgrounds = read_images(truth, chosen, "background") if emptied else {}
    images = read_images(pins, chosen - backgrounds.keys()) | backgrounds
    ids = sorted(images)
    return stack_views([images[pin] for pin in ids], side), [scene_of[pin] for pin in ids]
