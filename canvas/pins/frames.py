"""The frames that the generator works in, and how a picture of any size is brought into one.

A frame (*bucket*) is a height and a width in pixels. Pictures of one frame make a batch; a picture goes into the frame
whose aspect is nearest to its own, so little of it is cut off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSpec:
    """Sizes that the generator is trained on, in pixels."""

    side: int  # of the square frame
    buckets: tuple[tuple[int, int], ...]  # height and width of each frame, of about side * side pixels
    hole_inflation: int  # latent cells by which what is painted grows into the product

    def __post_init__(self) -> None:
        if (self.side, self.side) not in self.buckets:
            raise ValueError(f"frames.buckets must hold the square of frames.side, [{self.side}, {self.side}]")
        if far := [size for size in self.buckets if not 0.75 < size[0] * size[1] / self.side**2 < 1.34]:
            raise ValueError(f"frames.buckets {far} differ from {self.side} x {self.side} pixels by more than a third")
        if self.hole_inflation < 0:
            raise ValueError(f"frames.hole_inflation is {self.hole_inflation}: it must be 0 or more")

    @property
    def max_aspect(self) -> float:
        """Longest side over shortest among the frames."""
        return max(max(size) / min(size) for size in self.buckets)

    def check_cells(self, multiple: int) -> None:
        """Raises `ValueError` unless `multiple` divides the sides of every frame."""
        if uneven := [size for size in self.buckets if size[0] % multiple or size[1] % multiple]:
            raise ValueError(f"frames.buckets {uneven} are no multiples of {multiple} pixels: the networks need that")


@dataclass(frozen=True, slots=True)
class View:
    """A picture scaled to `scaled` and cropped at (top, left) to `frame`."""

    scaled: Size
    top: int
    left: int
    frame: Size

    @property
    def mirrored(self) -> View:
        """The same view of the mirrored picture."""
        return replace(self, left=self.scaled[1] - self.left - self.frame[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The denoiser's size conditioning (canvas.pins.frames.build_size_ids).

        A picture counts as of the size it was scaled to: a larger original lost nothing that the frame could show,
        and what the pipeline says of its frames was then seen in training.
        """
        return build_size_ids(self.scaled, (self.top, self.left), self.frame)


def select_frame(size: Size, spec: FrameSpec) -> Size:
    """The frame whose aspect is nearest to that of a picture of `size`."""
    aspect = math.log(size[1] / size[0])
    return min(spec.buckets, key=lambda frame: (abs(math.log(frame[1] / frame[0]) - aspect), frame))


def compute_view(
    size: Size,
    spec: FrameSpec,
    rng: np.random.Generator | None = None,
    box: tuple[int, int, int, int] | None = None,
    zoom: float = 1.0,
) -> View:
    """The view of a picture of `size` that covers its frame; what does not fit is cut off at both ends, or with `rng`
    at random. `box` (x0, y0, x1, y1 in the picture) stays inside, as far as it fits. `zoom`, 1 or more, scales it up
    beyond what covers the frame."""
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


def extract_view(image: Image.Image, view: View) -> NDArray[np.uint8]:
    """Pixels (h, w, channels), or (h, w) of a grey picture, of `view`; scaled down without aliasing."""
    height, width = view.scaled
    small = image.resize((width, height), Image.Resampling.LANCZOS if image.mode == "RGB" else Image.Resampling.BOX)
    box = view.left, view.top, view.left + view.frame[1], view.top + view.frame[0]
    return np.asarray(small.crop(box))


def build_size_ids(original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int]) -> tuple[int, ...]:
    """SDXL's six numbers, as stock diffusers orders them: original (height, width), crop (top, left), target
    (height, width)."""
    return (*original, *crop, *target)
