"""Do the backgrounds of a scene have the colours that real images of it have?

Guidance burns a scene out or drains it while judges of scenes go on recognizing it. So each colour's mean and the share
of clipped pixels of a scene are compared with the range that real images of the scene span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canvas.pins.images import Pixels
from canvas.pins.masks import Mask

MEASURED = ("red", "green", "blue", "clipped")
"""Columns of the colours of an image."""

BLACK, WHITE = 2, 253  # bytes; a pixel with a channel beyond them is clipped


@dataclass(frozen=True, slots=True)
class ColourComparison:
    """Colours of generated backgrounds of one scene, and what real ones span."""

    generated: NDArray[np.float64]  # [4]: mean of each of MEASURED over the images
    low: NDArray[np.float64]  # [4], of real images
    high: NDArray[np.float64]  # [4]

    @property
    def is_in_range(self) -> bool:
        """Whether each mean lies in the range of the real images'."""
        return bool(((self.low <= self.generated) & (self.generated <= self.high)).all())

    def to_metrics(self) -> dict[str, float]:
        """Return every mean with its range, and whether all are in it, by name."""
        metrics: dict[str, float] = {"in_range": float(self.is_in_range)}
        for name, value, low, high in zip(MEASURED, self.generated, self.low, self.high, strict=True):
            metrics |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
        return metrics


def measure_background_colours(images: Sequence[Pixels], masks: Sequence[Mask]) -> NDArray[np.float64]:
    """Measure images (H, W, 3) without their products.

    Args:
        images: Each of the size of its mask.
        masks: (H, W) of bool, true on the product.

    Returns:
        (N, 4): the mean red, green and blue in 0 to 255 and the share of pixels with a clipped channel, in the columns
        of MEASURED; without the images that are all product.
    """
    rows = []
    for image, mask in zip(images, masks, strict=True):
        pixels = image[~mask]
        if len(pixels):
            clipped = ((pixels < BLACK) | (pixels > WHITE)).any(axis=1).mean()
            rows.append([*pixels.mean(axis=0), clipped])
    return np.array(rows, np.float64).reshape(-1, len(MEASURED))


def compare_colours(generated: NDArray[np.float64], real: NDArray[np.float64]) -> ColourComparison:
    """Compare rows of `measure_background_colours` of one scene: the generated ones' mean with the real ones' range.

    The range holds all real images: each channel of a scene in one light has few values.

    Raises:
        ValueError: There are no rows on one side.
    """
    if not len(generated) or not len(real):
        raise ValueError(
            f"colours of {len(generated)} generated and {len(real)} real images cannot be compared: give one of each"
        )
    return ColourComparison(generated.mean(axis=0), real.min(axis=0), real.max(axis=0))
