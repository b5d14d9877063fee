"""What a showroom is made of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

DEFECTS = (
    "blurred",
    "tiny",
    "overexposed",
    "underexposed",
    "text_overlay",
    "near_duplicate",
    "empty_text",
    "unrelated_text",
    "broken_bytes",
)
"""Planted in equal numbers; `truth.defect` names the one that a pin has."""

KINDS = ("in_scene", "on_white", "scene")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowroomSpec:
    """Number of pins, and fractions of them; what the fractions leave is in-scene pins for training."""

    pins: int
    on_white: float  # share of the pins that show a product on white
    scene_only: float  # share without a product; the rest shows one in a scene
    unseen_product: float  # share of held-out products in known views
    unseen_view: float  # share of known products in held-out views
    unseen_both: float  # share of held-out products in held-out views
    defective: float  # spread evenly over DEFECTS, at least one of each

    def __post_init__(self) -> None:
        if self.pins < 4 * len(DEFECTS):
            raise ValueError(
                f"showroom.pins is {self.pins}: at least {4 * len(DEFECTS)} are needed to plant each defect"
            )
        for field in fields(self)[1:]:
            if not 0 <= getattr(self, field.name) <= 0.5:
                raise ValueError(f"showroom.{field.name} is {getattr(self, field.name)}: a fraction from 0 to 0.5")
        if self.on_white + self.scene_only > 0.5 or self.unseen_product + self.unseen_view + self.unseen_both > 0.5:
            raise ValueError("showroom: on_white + scene_only, and the unseen fractions together, are each at most 0.5")
