"""Masks drawn into their images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.masks.simulation import dilate_by_disk, erode_by_disk
from canvas.pins import tables
from canvas.pins.images import composite_on_white, draw_contact_sheet, read_images
from canvas.pins.masks import Mask, decode_mask

LINE = (255, 0, 200)
"""A magenta that products and rooms hardly have."""


def draw_outline(image: Image.Image, mask: Mask) -> Image.Image:
    """Return the image with the product's edge drawn in and the rest pale."""
    pixels = np.array(composite_on_white(image), dtype=np.float32)
    pixels[~mask] = 0.45 * pixels[~mask] + 0.55 * 255
    if mask.any():
        pixels[dilate_by_disk(mask, 1) & ~erode_by_disk(mask, 1)] = LINE
    return Image.fromarray(pixels.round().astype(np.uint8))


def draw_mask_sheet(pins: Path, masks: Path, iou_of: Mapping[str, float], each: int) -> Image.Image:
    """Draw the `each` best and worst masks into their pins, by IoU where it is known, else by confidence."""
    verdicts = {row["pin_id"]: row for row in tables.read(masks, ["pin_id", "confidence", "rejected"]).to_pylist()}
    worth = {pin_id: iou_of.get(pin_id, float(row["confidence"])) for pin_id, row in verdicts.items()}
    ranked = sorted(verdicts, key=lambda pin_id: (-worth[pin_id], pin_id))
    best = [pin_id for pin_id in ranked if verdicts[pin_id]["rejected"] != "empty"][:each]
    chosen = [*best, *(pin_id for pin_id in ranked[-each:] if pin_id not in best)]
    images, encoded = read_images(pins, chosen), tables.read_column(masks, "mask", chosen)
    outlines = [draw_outline(images[pin_id], decode_mask(encoded[pin_id])) for pin_id in chosen]
    labels = [
        f"{'IoU' if pin_id in iou_of else 'confidence'} {worth[pin_id]:.3f} {verdicts[pin_id]['rejected'] or ''}"
        for pin_id in chosen
    ]
    return draw_contact_sheet(outlines, labels, columns=8, cell=150)
