"""Captions of pins to train and score the captioner with: the truth where it is known, else the owner's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from canvas.pins import tables
from canvas.pins.captions import select_owner_caption
from canvas.sources.showroom.texts import compose_true_caption


@dataclass(frozen=True, slots=True)
class CaptionedPin:
    """What training and scoring of captions need to know of a pin besides its image."""

    split: str
    category: str
    caption: str
    scene: str | None  # None: truth does not know it
    has_truth: bool


def load_captioned_pins(pins: Path, truth: Path, splits: Mapping[str, str]) -> dict[str, CaptionedPin]:
    """Return pins with their captions: the showroom's truth, else the alt text or title that they came with.

    Args:
        splits: Pin_id -> split. Other pins are left out, and those without any caption.
    """
    truth_of = {row["pin_id"]: row for row in tables.read(truth, ["pin_id", "kind", "scene"]).to_pylist()}
    captioned = {}
    for row in tables.iterate_rows(pins, ["title", "alt_text", "category"], splits):
        pin_id, true = row["pin_id"], truth_of.get(row["pin_id"])
        caption = select_owner_caption(row) if true is None else compose_true_caption(row, true)
        if caption:
            scene = None if true is None else true["scene"]
            captioned[pin_id] = CaptionedPin(splits[pin_id], row["category"] or "", caption, scene, true is not None)
    return captioned
