"""Pictures on disk: read within limits, written without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from canvas.data.images import decode

LOSSLESS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True, "quality": 80, "exact": True},
}


def picture(path: Path) -> Image.Image:
    """The picture at `path`, RGB or RGBA, upright. Raises ValueError in one sentence if it is none or too large."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def save_lossless(image: Image.Image, path: Path) -> None:
    """Write `image` as PNG or lossless WebP, by the suffix of `path`; lossy formats would change the product."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in LOSSLESS:
        raise ValueError(
            f"{path.name}: {kind or 'no suffix'} is refused, it would change the product's pixels or is unknown; "
            f"use {' or '.join(LOSSLESS)}"
        )
    image.save(path, **LOSSLESS[kind])
