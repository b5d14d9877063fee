"""Measures of an image that need no model: size, sharpness, exposure, information.

All but the size are taken from the image over white, reduced to at most WORKING_SIDE pixels on its long side, so
that they hardly depend on its resolution. Luma is Rec. 601, 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from PIL import Image

from canvas.filters.chain import Scorer
from canvas.filters.near_duplicates import compute_perceptual_hash
from canvas.pins import tables
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.ranges import Natural, NonNegative

WORKING_SIDE = 256
BLUR_TAPS = 5
"""Pixels, width of the box filter that `compute_sharpness` compares with; Crété-Roffet's 9 is for full-size photos."""

Luma = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityLimits:
    """What an image must have."""

    min_short_side: Natural  # pixels
    max_aspect: Annotated[float, Ge(1)]  # long side / short side
    min_sharpness: NonNegative  # 1 - blur metric of Crete-Roffet (2007), 0..1
    min_brightness: NonNegative  # mean luma, 0..1
    max_brightness: NonNegative  # mean luma, 0..1
    max_clipped: NonNegative  # a bright image is overexposed only if more than this is clipped: goods on white are not
    min_entropy: NonNegative  # bits of the luma histogram, 0..8


@dataclass(frozen=True, slots=True)
class Quality:
    """The measures of one image; the fields are columns of tables.KEPT."""

    short_side: int  # pixels
    aspect: float  # long side / short side, 1 or more
    sharpness: float  # 0: another blur changes nothing; 1: it would take everything
    brightness: float  # mean luma
    clipped: float  # fraction of the pixels below paper white with a burnt channel
    entropy: float  # of the luma histogram, bits, 0..8


class QualityScorer(Scorer):
    """Scorer: the measures and the perceptual hash; all null for bytes that are no image."""

    reads = ("image",)
    scores = tables.select_fields(tables.KEPT, [*(measure.name for measure in fields(Quality)), "phash"])

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:
            try:
                image = decode_image(data)
            except ValueError:
                yield dict.fromkeys(self.scores.names)
            else:
                yield asdict(measure_quality(image)) | {"phash": compute_perceptual_hash(image)}


def measure_quality(image: Image.Image) -> Quality:
    """Measure a decoded image."""
    small = composite_on_white(image)
    small.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"))
    return Quality(
        short_side=min(image.size),
        aspect=max(image.size) / min(image.size),
        sharpness=compute_sharpness(luma.astype(np.float32) / np.float32(255)),
        brightness=float(luma.mean()) / 255,
        clipped=compute_clipped_share(np.asarray(small)),
        entropy=compute_entropy(luma),
    )


def compute_sharpness(luma: Luma) -> float:
    """Compute the share of the neighbour differences of `luma` [h, w] that a blur removes along the less blurred axis.

    1 - the blur metric of Crété-Roffet et al., "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric" (2007), eq. 1-7. Independent of contrast and brightness; a flat image has 0.
    """
    return min(_compute_lost_differences(luma, axis) for axis in (0, 1))


def compute_clipped_share(rgb: Pixels) -> float:
    """Compute the share of pixels with a channel at 252 or more among those below paper white (a channel under 250).

    A white backdrop is white in all channels alike; overexposure burns one channel of what has a colour before the
    others. 0 for an image that is white all over.
    """
    below_white = rgb.min(-1) < 250
    return float((rgb.max(-1) >= 252)[below_white].mean()) if below_white.any() else 0.0


def compute_entropy(luma: Pixels) -> float:
    """Compute the Shannon entropy of the 256-bin histogram, bits: 0 for a flat image, 8 for a uniform one."""
    shares = np.bincount(luma.ravel(), minlength=256) / luma.size
    shares = shares[shares > 0]
    return abs(float(shares @ np.log2(shares)))


def _compute_lost_differences(luma: Luma, axis: int) -> float:
    padding = [(0, 0), (0, 0)]
    padding[axis] = (BLUR_TAPS // 2, BLUR_TAPS // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(luma, padding, mode="symmetric"), BLUR_TAPS, axis)
    before, after = (np.abs(np.diff(plane, axis=axis)) for plane in (luma, windows.mean(-1)))
    total = float(before.sum())
    return float(np.maximum(before - after, 0).sum()) / total if total else 0.0
