"""Image files: read within limits, written without loss."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps

from canvas.pins.images import decode_image

LOSSLESS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True, "quality": 80, "exact": True},
}
MAX_WEBP_SIDE = 16_383  # the longest that the format knows
PNG_DEPTH_OFFSET = 24  # place of the header's byte: Pillow opens 16-bit colour as 8-bit


def load_image(path: Path) -> Image.Image:
    """Load the image at `path`, RGB or RGBA, upright. Raises ValueError in one sentence if it is none or too large."""
    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def describe_conversion(path: Path, loaded: Image.Image) -> str | None:
    """Return what was converted to 8-bit sRGB where `loaded` has other pixels than the file at `path`; else None."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as stored:
        if stored.format == "PNG" and data[PNG_DEPTH_OFFSET] == 16:
            return "16 bits a channel"
        if stored.mode == "CMYK":
            return "CMYK"
        if ImageOps.exif_transpose(stored).convert(loaded.mode).tobytes() == loaded.tobytes():
            return None
        if "icc_profile" not in stored.info:
            return f"the colours of mode {stored.mode}"
        profile = ImageCms.ImageCmsProfile(io.BytesIO(stored.info["icc_profile"]))
        return f"the colour profile {ImageCms.getProfileDescription(profile).strip()!r}"


def check_format(name: str, suffix: str, size: tuple[int, int]) -> None:
    """Raise ValueError, which says `name`, unless files of `suffix` (no dot) hold images of that size without loss."""
    if suffix not in LOSSLESS:
        raise ValueError(
            f"{name} is refused, it would change the product's pixels or is unknown; use {' or '.join(LOSSLESS)}"
        )
    if suffix == "webp" and max(size) > MAX_WEBP_SIDE:
        raise ValueError(f"{size[0]} x {size[1]} pixels are too many for webp, {MAX_WEBP_SIDE} a side at most: use png")


def save_lossless(image: Image.Image, path: Path) -> None:
    """Write `image` as PNG or lossless WebP, by the suffix of `path`; lossy formats would change the product."""
    suffix = path.suffix.lower().lstrip(".")
    check_format(path.name, suffix, image.size)
    image.save(path, **LOSSLESS[suffix])
