"""What a showroom is made of: its scenes, its planted defects, and how many pins show what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from canvas.ranges import Count, Half

DEFECTS = {
    "blurred": 0.4,
    "tiny": 0.3,
    "overexposed": 0.4,
    "underexposed": 0.35,
    "text_overlay": 0.6,
    "near_duplicate": 0.8,
    "empty_text": 0.5,
    "unrelated_text": 0.5,
    "broken_bytes": 0.02,
}
"""Planted in equal numbers; `truth.defect` names the one that a pin has. -> How much of people's interest it leaves."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One panorama."""

    file: str
    words: str  # how truth names it
    place: str  # how a sentence names it: the same words after a preposition
    held_out_yaw: float  # degrees; the sector of SECTOR degrees round it is for the unseen views only


SECTOR = 90.0

SCENES = (
    Scene("lebombo", "apartment", "in an apartment", 130),
    Scene("potsdamer_platz", "city square", "on a city square", 60),
    Scene("kiara_1_dawn", "desert at dawn", "in the desert at dawn", 60),
    Scene("forest_slope", "forest", "in a forest", 90),
    Scene("st_fagans_interior", "lobby", "in a lobby", 200),
    Scene("dikhololo_night", "savanna at night", "in the savanna at night", 300),
    Scene("rooitou_park", "park meadow", "on a park meadow", 100),
    Scene("studio_small_03", "photo studio", "in a photo studio", 130),
    Scene("venice_sunset", "waterfront at sunset", "on the waterfront at sunset", 265),
    Scene("empty_warehouse_01", "warehouse", "in a warehouse", 250),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowroomSpec:
    """Number of pins, and fractions of them; what the fractions leave is in-scene pins for training."""

    pins: Count  # how many to render
    on_white: Half  # share of the pins that show a product on white
    scene_only: Half  # share without a product; the rest shows one in a scene
    unseen_product: Half  # share of held-out products in known views
    unseen_view: Half  # share of known products in held-out views
    unseen_both: Half  # share of held-out products in held-out views
    defective: Half  # share with a planted defect, spread evenly over the kinds, at least one of each

    def __post_init__(self) -> None:
        if self.pins < (least := 4 * len(DEFECTS)):
            raise ValueError(f"showroom.pins is {self.pins}: at least {least} are needed to plant each defect")
        if self.on_white + self.scene_only > 0.5 or self.unseen_product + self.unseen_view + self.unseen_both > 0.5:
            raise ValueError("showroom: on_white + scene_only, and the unseen fractions together, are each at most 0.5")


def require_file(path: Path) -> Path:
    """Return the path of a package file; `ValueError` if it is missing."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: build the demo data with `make data`")
    return path
