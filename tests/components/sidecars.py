"""Masks and captions of the painted catalogue (tests.components.mugs), as perfect stages would make them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from canvas.pins import tables
from canvas.pins.captions import iterate_texts
from canvas.pins.masks import compute_box, decode_mask, encode_mask
from canvas.sources.showroom.texts import compose_true_caption


def write_sidecars(folder: Path) -> None:
    """Tables masks and captions of the kept pins in `folder`, from its truth."""
    truth = {row["pin_id"]: row for row in tables.read(folder / "truth").to_pylist()}
    kept = tables.read_kept_splits(folder / "pins", folder / "kept")
    masks, captions = [], []
    for pin in tables.read(folder / "pins").to_pylist():
        if (pin_id := pin["pin_id"]) not in kept:
            continue
        alpha = truth[pin_id]["alpha"]
        mask = decode_mask(alpha) if alpha else None
        masks.append(
            {
                "pin_id": pin_id,
                "mask": None if mask is None else encode_mask(mask),
                "alpha": alpha,
                "confidence": 1.0,
                "box": None if mask is None else compute_box(mask),
                "rejected": "empty" if mask is None else None,
            }
        )
        for source, text in iterate_texts(pin | {"generated": compose_true_caption(pin, truth[pin_id])}):
            captions.append({"pin_id": pin_id, "source": source, "caption": text})
    tables.write(folder / "masks", [pa.Table.from_pylist(masks, tables.MASKS)], tables.MASKS)
    tables.write(folder / "captions", [pa.Table.from_pylist(captions, tables.CAPTIONS)], tables.CAPTIONS)
