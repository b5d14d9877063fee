"""The network that predicts a scene's light on a product, and its training; params of a stage, so light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, MultipleOf

from canvas.light.shadow.spec import ShadowSpec
from canvas.ranges import Count, PartialShare
from canvas.train.spec import TrainableParams

Mode = Literal["hard", "soft"]
"""hard: the product's core is the original's, byte for byte; soft: original x a certified gain of the scene's light."""

LIGHT_FOLDER = "light"
"""Folder of the network in an assembled generator; one without it has no mode soft."""

NO_LIGHT = "this model has no light network, which mode soft needs: assemble it with that of train_light, or use hard"

SOFT_PHOTOGRAPH = "mode soft relights products, but a photograph that is kept stays in its own light: use hard"

KEPT_REFLECTION = "a photograph that is kept has its own reflections: leave the reflection out, or choose another place"


@dataclass(frozen=True, kw_only=True, slots=True)
class LightSpec:
    """The network."""

    image_size: Annotated[int, Ge(16), MultipleOf(16)]  # side in pixels of the square that images are resized to
    channels: tuple[Count, Count, Count, Count]  # feature maps at strides 2, 4, 8 and 16
    hidden: Count  # units that read a node's features, the scene's and its place


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainLightParams(TrainableParams):
    """What the network is, and how it is trained and scored."""

    network: LightSpec
    colour: PartialShare  # largest change of each channel of a training product: its colours say nothing of the light
    score_batch: Count  # images at once, when scored
    sheet_pins: Count  # held-out pins on the sheet
    shadow: ShadowSpec | None  # the network of a product's shadow, trained likewise; null: none
