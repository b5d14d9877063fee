"""What a certificate holds of a shadow: its map, and what is needed to take it off the image again."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from canvas.light.shadow.casting import ShadowMap, compute_remainder
from canvas.pins.images import ImageLimits, Pixels, decode_image, encode_png
from canvas.pins.masks import Mask

MAX_NODES = 256
MAX_PIXELS = 64_000_000
MAX_ENCODED = 32 * 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowRecord:
    """A shadow that lies on an image."""

    strength: float  # as it was asked for; the map has it already
    shadow: ShadowMap  # in pixels of the image
    remainder: Pixels  # of canvas.light.shadow.casting.compute_remainder
    before: str  # digest of the image without the shadow

    def to_json(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {
            "strength": self.strength,
            "window": list(self.shadow.window),
            "opacity": _encode(self.shadow.levels),
            "remainder": _encode(self.remainder),
            "before": self.before,
        }


def record_shadow(
    cast: Pixels, before: Pixels, before_digest: str, shadow: ShadowMap, core: Mask, strength: float
) -> ShadowRecord:
    """Return the record of a shadow.

    Args:
        cast: The image [H, W, 3] with the shadow.
        before: [H, W, 3] without it.
        before_digest: Of that image (canvas.light.certificate.digest_image).
        shadow: Its map, as it was cast.
        core: [H, W] of the product.
        strength: As it was asked for.
    """
    remainder = compute_remainder(cast, shadow, before, core)
    return ShadowRecord(strength=strength, shadow=shadow, remainder=remainder, before=before_digest)


def parse_shadow(values: Mapping[str, Any]) -> ShadowRecord:
    """Read what `to_json` made; ValueError, in part of a sentence, where it is no shadow."""
    window, before, strength = values.get("window"), values.get("before"), values.get("strength")
    if not (isinstance(window, list) and len(window) == 4 and all(type(side) is int and side >= 0 for side in window)):
        raise ValueError("the window of its shadow must be 4 whole numbers of pixels")
    left, top, right, bottom = window
    if not (left < right and top < bottom and (right - left) * (bottom - top) <= MAX_PIXELS):
        raise ValueError(f"the window of its shadow, {window}, has no pixels or more than {MAX_PIXELS}")
    if not isinstance(before, str) or isinstance(strength, bool) or not isinstance(strength, int | float):
        raise ValueError("its shadow has no strength, or no digest of the image before")
    levels = _decode(values, "opacity", MAX_NODES**2).convert("L")
    if levels.width != levels.height:
        raise ValueError(f"the map of its shadow has {levels.width} x {levels.height} nodes: it must be square")
    remainder = _decode(values, "remainder", (right - left) * (bottom - top)).convert("RGB")
    if remainder.size != (right - left, bottom - top):
        raise ValueError(
            f"the remainder of its shadow has {remainder.width} x {remainder.height} pixels, not its window's"
        )
    shadow = ShadowMap(np.asarray(levels), (left, top, right, bottom))
    return ShadowRecord(strength=float(strength), shadow=shadow, remainder=np.asarray(remainder), before=before)


def _encode(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    return base64.b64encode(encode_png(Image.fromarray(pixels))).decode()


def _decode(values: Mapping[str, Any], name: str, max_pixels: int) -> Image.Image:
    encoded = values.get(name)
    try:
        data = base64.b64decode(encoded if isinstance(encoded, str) else "!", validate=True)
    except binascii.Error:
        raise ValueError(f"the {name} of its shadow is no base64") from None
    return decode_image(data, ImageLimits(max_bytes=MAX_ENCODED, max_pixels=max_pixels))
