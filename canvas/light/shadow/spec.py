"""The network that predicts a product's shadow; part of the params of a stage, so light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MultipleOf

from canvas.ranges import Count

NO_SHADOW = "this model has no shadow network: assemble it with that of train_light, or leave the shadow out"

KEPT_SHADOW = "a photograph that is kept has its own shadows: leave the shadow out, or choose another place"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowSpec:
    """The network."""

    image_size: Annotated[int, Ge(16), Le(256), MultipleOf(16)]  # side in pixels of the square that a window becomes
    channels: tuple[Count, Count, Count, Count]  # feature maps at strides 2, 4, 8 and 16


def check_strength(name: str, strength: float, what: str = "shadow") -> None:
    """Raise ValueError, which calls it `name`, unless the strength of a shadow, or what else, is from 0 to 1."""
    if not 0 <= strength <= 1:  # false for NaN
        raise ValueError(f"{name} is {strength}: it must be from 0, no {what}, to 1, the whole of it")
