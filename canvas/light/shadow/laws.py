"""What a shadow may do to an image, measured: each law is one number and its limit, as of canvas.light.laws."""

from __future__ import annotations

from canvas.light.laws import Check
from canvas.light.shadow.casting import MAX_OPACITY, ShadowMap, measure_darkening
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask

SHADOW_LIMITS = {
    "shadow": MAX_OPACITY,  # share of the background's light that the map takes at its darkest
    "darkening": 1.0,  # levels of 255 by which a pixel lies outside of what the map allows
}
"""By law."""


def check_shadow(cast: Pixels, before: Pixels, shadow: ShadowMap, core: Mask) -> list[Check]:
    """Measure what a shadow did to an image.

    Args:
        cast: [H, W, 3] with the shadow.
        before: [H, W, 3] without it.
        shadow: Its map.
        core: [H, W] of the product, where both are the same.
    """
    measured = {
        "shadow": float(shadow.levels.max()) / 255,
        "darkening": measure_darkening(cast, shadow, before, core),
    }
    return [Check(law, value, SHADOW_LIMITS[law]) for law, value in measured.items()]
