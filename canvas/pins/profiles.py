"""ICC colour profiles: what they do to colours decides, not what they are called."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

TOLERANCE = 2
"""Bytes by which a profile may move a colour and still count as sRGB: rounded curves and matrices."""
PROBES = 11  # values a channel
SRGB_GAMMA = 0.45455
"""What PNGs of sRGB say, though the curve is not quite that power."""
GAMMA_TOLERANCE = 0.02
MIN_GAMMA, MAX_GAMMA = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class Converter:
    """What makes sRGB of an image."""

    name: str
    space: str  # "L" | "RGB" | "CMYK": the mode that the transform takes
    transform: ImageCms.ImageCmsTransform | None  # to RGB; None: its colours are sRGB already


@lru_cache(maxsize=8)
def build_converter(profile: bytes, mode: str) -> Converter | None:
    """Return what converts images under this ICC profile to sRGB, by its curves, whatever its name; None if nothing.

    Args:
        profile: ICC.
        mode: Of the images, "L", "RGB" or "CMYK"; profiles for RGB are right for grey, too.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
        if space is None or (space != mode and (space, mode) != ("RGB", "L")):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), space, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # as browsers do
        return None
    try:
        name = ImageCms.getProfileDescription(source).strip()[:60]
    except ImageCms.PyCMSError:
        name = "without a name"
    if space != "CMYK":
        probe = _build_probe(space)
        moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= TOLERANCE:
            return Converter(name, space, None)
    return Converter(name, space, transform)


def build_gamma_table(gamma: float) -> list[int] | None:
    """Return the sRGB byte of each byte of an image whose light was stored with the exponent `gamma` (PNG, 11.3.2.2).

    None: they are sRGB, near enough, or nobody stores so.
    """
    if abs(gamma - SRGB_GAMMA) < GAMMA_TOLERANCE or not MIN_GAMMA <= gamma <= MAX_GAMMA:
        return None
    light = (np.arange(256) / 255) ** (1 / gamma)
    stored = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return [int(value) for value in (255 * stored).round()]


def _build_probe(space: str) -> Image.Image:
    """Build an image of colours from all over an 8-bit space, "L" or "RGB"."""
    if space == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    values = np.linspace(0, 255, PROBES).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(values, values, values), -1).reshape(1, -1, 3))


def apply_converter(image: Image.Image, converter: Converter, mode: str) -> Image.Image:
    """Convert to sRGB, RGB or RGBA; alpha stays."""
    assert converter.transform is not None
    alpha = image.getchannel("A") if mode == "RGBA" else None
    source = image if image.mode == converter.space else image.convert(converter.space)
    converted = ImageCms.applyTransform(source, converter.transform)
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
