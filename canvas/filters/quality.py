"""Measures of a picture that need no model: size, sharpness, exposure, information.

All but the size are taken from the picture over white, reduced to at most WORKING_SIDE pixels on its long
side, so that they hardly depend on its resolution. Luma is Rec. 601, 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from canvas.filters.near_duplicates import compute_perceptual_hash
from canvas.pins.images import composite_on_white, decode_image

WORKING_SIDE = 256
BLUR_TAPS = 5
"""Width of the box filter that `sharpness` compares with, in pixels; Crété-Roffet's 9 is meant for full-size photos."""

Luma = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityLimits:
    """What a picture must have. Lengths in pixels, luma and fractions in 0..1, entropy in bits."""

    min_short_side: int  # pixels
    max_aspect: float  # long side / short side
    min_sharpness: float  # 1 - blur metric of Crete-Roffet (2007)
    min_brightness: float  # mean luma, 0..1
    max_brightness: float  # mean luma, 0..1
    max_clipped: float  # a bright picture is overexposed only when more than this is clipped: goods on white are not
    min_entropy: float  # bits of the luma histogram


@dataclass(frozen=True, slots=True)
class Quality:
    """The measures of one picture; the fields are columns of tables.KEPT."""

    short_side: int  # pixels
    aspect: float  # long side / short side, 1 or more
    sharpness: float  # 0: another blur changes nothing; 1: it would take everything
    brightness: float  # mean luma
    clipped: float  # fraction of the pixels below paper white with a burnt channel
    entropy: float  # of the luma histogram, bits, 0..8


class QualityScorer:
    """Scorer: the measures and the perceptual hash; all null for bytes that are no picture."""

    reads = ("image",)
    scores = pa.schema(
        [
            ("short_side", pa.int32()),
            ("aspect", pa.float32()),
            ("sharpness", pa.float32()),
            ("brightness", pa.float32()),
            ("clipped", pa.float32()),
            ("entropy", pa.float32()),
            ("phash", pa.string()),
        ]
    )

    def __call__(self, images: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        for data in images:
            try:
                image = decode_image(data)
            except ValueError:
                yield dict.fromkeys(self.scores.names)
            else:
                yield asdict(measure_quality(image)) | {"phash": compute_perceptual_hash(image)}


def measure_quality(image: Image.Image) -> Quality:
    """The measures of a decoded picture."""
    small = composite_on_white(image)
    small.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"))
    return Quality(
        short_side=min(image.size),
        aspect=max(image.size) / min(image.size),
        sharpness=sharpness(luma.astype(np.float32) / np.float32(255)),
        brightness=float(luma.mean()) / 255,
        clipped=compute_clipped_share(np.asarray(small)),
        entropy=entropy(luma),
    )


def sharpness(luma: Luma) -> float:
    """Share of the neighbour differences of `luma` [h, w] that a box blur takes away, along the axis that loses less.

    1 - the blur metric of Crété-Roffet et al., "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric" (2007), eq. 1-7. Independent of contrast and brightness; a flat picture
    has 0.
    """
    return min(_compute_lost_differences(luma, axis) for axis in (0, 1))


def compute_clipped_share(rgb: NDArray[np.uint8]) -> float:
    """Of the pixels [h, w, 3] below paper white (a channel under 250), the fraction with a channel at 252 or more.

    A white backdrop is white in all channels alike; overexposure burns one channel of what has a colour before the
    others. 0 for a picture that is white all over.
    """
    below_white = rgb.min(-1) < 250
    return float((rgb.max(-1) >= 252)[below_white].mean()) if below_white.any() else 0.0


def entropy(luma: NDArray[np.uint8]) -> float:
    """Shannon entropy of the 256-bin histogram, bits: 0 for a flat picture, 8 for a uniform one."""
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
