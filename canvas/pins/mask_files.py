"""Masks as people hand them in: of 0 and 1, once saved as JPEG, with black for the product."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FAINT = 32
"""Values so near to black or white that a lossy format may have made them of these."""
NOISE_RATIO = 4
"""Faint values for each of the others, from which they are noise. Of a smooth edge they are fewer than the others."""
EDGE_PIXELS = 2
"""Pixels across the edge of a hard mask that a lossy format leaves in between."""
BORDER_SHARE = 0.9
"""Share of the image's border that is white where white stands for the background, as in masks for inpainting."""


def tidy_mask(mask: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return a decoded mask, black and white where it has but two values, or others by the noise of a lossy format
    alone; and what a person should hear."""
    if mask.mode == "RGBA" and len(set(mask.getchannel("A").getextrema())) > 1:  # its alpha may be the mask
        return mask, []
    notes: list[str] = []
    values = given = np.asarray(mask.convert("L"))
    low, high = int(values.min()), int(values.max())
    if (low, high) != (0, 255) and has_two_values(values):
        values = _draw(values == high)
        notes.append(f"its values are {low} and {high}, of which {high} is taken for product")
    elif _is_noisy(values):
        values = _draw(values >= 128)
        notes.append("it is black and white but for the noise of a lossy format, which was left out")
    white = values >= 128
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if border.mean() >= BORDER_SHARE and not white.all():
        notes.append(
            "its border is white, so the background counts as product and its black part is generated: invert it if "
            "black is the product"
        )
    return (mask if values is given else Image.fromarray(values).convert("RGB")), notes


def has_two_values(values: NDArray[np.uint8]) -> bool:
    """Tell a mask of two values, whatever they are."""
    low, high = values.min(), values.max()
    return bool(low < high and ((values == low) | (values == high)).all())


def _draw(white: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(white, np.uint8(255), np.uint8(0))


def _is_noisy(values: NDArray[np.uint8]) -> bool:
    """Tell a mask of black and white, with other values as well, most of them near to these."""
    between = int(((values >= FAINT) & (values < 256 - FAINT)).sum())
    faint = int(((values > 0) & (values < 255)).sum()) - between
    inside = values >= 128
    edge = int((inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum())
    return faint > NOISE_RATIO * between and between <= EDGE_PIXELS * edge
