"""Images of every format, broken in some way: read rightly, or refused in one sentence."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from canvas.pins.images import decode_image


def try_case(seed: int) -> str | None:
    """Decode an image with a few bytes changed."""
    draw = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(draw.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(buffer, ("PNG", "JPEG", "WEBP")[seed % 3])
    data = bytearray(buffer.getvalue())
    for place in draw.integers(0, len(data), draw.integers(1, 5)):
        data[place] = draw.integers(0, 256)
    try:
        decode_image(bytes(data))
    except ValueError as error:
        return None if "\n" not in str(error) else f"several lines: {error}"
    return None
