"""Frames and crops: how an image of any size is brought to the sizes that networks work on.

A frame (*bucket*) is a height and a width in pixels. Images of one frame make a batch; an image goes into the frame
whose aspect is nearest to its own, so little of it is cut off. Random square crops show each epoch other pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Le
from PIL import Image

from canvas.pins.images import Pixels
from canvas.pins.masks import Box
from canvas.ranges import Count, Natural

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSpec:
    """How an image varies from epoch to epoch: a random square crop of it."""

    zoom: Annotated[float, Ge(1), Le(4)]  # the smallest crop holds 1 / zoom of the shorter side; 1: no zoom
    mirror: bool  # half of the crops are flipped


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSpec:
    """Sizes that the generator is trained on, in pixels."""

    side: Count  # pixels of the square frame's side
    buckets: tuple[tuple[Count, Count], ...]  # height and width of each frame, of about side * side pixels
    hole_inflation: Natural  # latent cells by which the hole grows into the product

    def __post_init__(self) -> None:
        if (self.side, self.side) not in self.buckets:
            raise ValueError(f"frames.buckets must hold the square of frames.side, [{self.side}, {self.side}]")
        if far := [size for size in self.buckets if not 0.75 < size[0] * size[1] / self.side**2 < 1.34]:
            raise ValueError(f"frames.buckets {far} differ from {self.side} x {self.side} pixels by more than a third")

    @property
    def max_aspect(self) -> float:
        """Longest side over shortest among the frames."""
        return max(max(size) / min(size) for size in self.buckets)

    def check_cells(self, multiple: int) -> None:
        """Raise `ValueError` unless `multiple` divides the sides of every frame."""
        if uneven := [size for size in self.buckets if size[0] % multiple or size[1] % multiple]:
            raise ValueError(f"frames.buckets {uneven} are no multiples of {multiple} pixels: the networks need that")


@dataclass(frozen=True, slots=True)
class View:
    """An image scaled to `scaled` and cropped at (top, left) to `frame`."""

    scaled: Size
    top: int
    left: int
    frame: Size

    @property
    def mirrored(self) -> View:
        """The same view of the mirrored image."""
        return replace(self, left=self.scaled[1] - self.left - self.frame[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The denoiser's size conditioning (`build_size_ids`).

        An image counts as of the size it was scaled to: a larger original lost nothing that the frame could show,
        and what the pipeline says of its frames was then seen in training.
        """
        return build_size_ids(self.scaled, (self.top, self.left), self.frame)


def crop_random_square(image: Pixels, side: int, crops: CropSpec, rng: np.random.Generator) -> Pixels:
    """Cut a random square [side, side, 3] out of `image` and scale it."""
    short = min(image.shape[:2])
    window = round(short / rng.uniform(1, crops.zoom))
    top = int(rng.integers(image.shape[0] - window + 1))
    left = int(rng.integers(image.shape[1] - window + 1))
    square = image[top : top + window, left : left + window]
    if crops.mirror and rng.random() < 0.5:
        square = square[:, ::-1]
    how = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(square), (side, side), interpolation=how), dtype=np.uint8)


def select_frame(size: Size, spec: FrameSpec) -> Size:
    """Return the frame whose aspect is nearest to that of an image of `size`."""
    aspect = math.log(size[1] / size[0])
    return min(spec.buckets, key=lambda frame: (abs(math.log(frame[1] / frame[0]) - aspect), frame))


def compute_view(
    size: Size, spec: FrameSpec, rng: np.random.Generator | None = None, box: Box | None = None, zoom: float = 1.0
) -> View:
    """Compute the view of an image of `size` that covers its frame; what does not fit is cut off.

    Args:
        size: Height and width of the image.
        spec: The frames.
        rng: Cuts at random places; without it, as much at both ends.
        box: x0, y0, x1, y1 in the image; stays inside, as far as it fits.
        zoom: 1 or more; scales up beyond what covers the frame.
    """
    frame = select_frame(size, spec)
    scale = zoom * max(frame[0] / size[0], frame[1] / size[1])
    scaled = max(frame[0], round(size[0] * scale)), max(frame[1], round(size[1] * scale))
    places = []
    for axis in (0, 1):
        spare = scaled[axis] - frame[axis]
        low, high = 0, spare
        if box is not None:
            start, end = box[1 - axis] * scale, box[3 - axis] * scale
            inside = max(0, math.ceil(end) - frame[axis]), min(spare, math.floor(start))
            if inside[0] <= inside[1]:
                low, high = inside
        place = round(spare / 2) if rng is None else int(rng.integers(low, high + 1))
        places.append(min(max(place, low), high))
    return View(scaled, places[0], places[1], frame)


def extract_view(image: Image.Image, view: View) -> Pixels:
    """Return the pixels of `view`, [h, w, channels], or [h, w] of a grey image; scaled down without aliasing."""
    height, width = view.scaled
    small = image.resize((width, height), Image.Resampling.LANCZOS if image.mode == "RGB" else Image.Resampling.BOX)
    return np.asarray(small.crop((view.left, view.top, view.left + view.frame[1], view.top + view.frame[0])))


def build_size_ids(original: Size, crop: tuple[int, int], target: Size) -> tuple[int, ...]:
    """Build SDXL's six numbers in the order of stock diffusers: original size, top left of the crop, target size."""
    return (*original, *crop, *target)
