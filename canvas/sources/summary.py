"""The pins of a source, in numbers and on a sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image, draw_contact_sheet

SHEET_ROWS = 2_000  # of the pins table, from which the sheet's images are taken
SHEET_EACH = 12  # images of every kind and of every planted defect


def count_pins(pins: Path, truth: Path, quarantined: Mapping[str, int]) -> dict[str, object]:
    """Count pins, whole and by split, kind and planted defect; of quarantined rows by reason."""
    table = tables.read(pins, ["split", "promoted"])
    true = tables.read(truth, ["kind", "defect"])
    return {
        "pins": table.num_rows,
        "promoted": sum(filter(None, table["promoted"].to_pylist())),
        "split": dict(sorted(Counter(table["split"].to_pylist()).items())),
        "kind": dict(sorted(Counter(true["kind"].to_pylist()).items())),
        "defect": dict(sorted(Counter(filter(None, true["defect"].to_pylist())).items())),
        "quarantined": sum(quarantined.values()),
        "quarantine": dict(sorted(quarantined.items())),
    }


def draw_source_sheet(pins: Path, truth: Path) -> Image.Image:
    """Draw rows of images: the kinds of sound pins, then the planted defects; a manifest's pins by category."""
    true = tables.read(truth, ["pin_id", "kind", "defect"]).to_pylist()
    labels = {row["pin_id"]: (row["defect"] is not None, row["defect"] or row["kind"]) for row in true}
    groups: dict[tuple[bool, str], list[Image.Image]] = {}
    rows_read = 0
    for batch in tables.read_batches(pins, ["pin_id", "image", "category"]):
        for row in batch.to_pylist():
            group = groups.setdefault(labels.get(row["pin_id"], (False, row["category"] or "pins")), [])
            if len(group) < SHEET_EACH:
                with suppress(ValueError):  # planted broken bytes
                    group.append(decode_image(row["image"]))
        rows_read += batch.num_rows
        if rows_read >= SHEET_ROWS:
            break
    cells = [(label, image) for (_, label), images in sorted(groups.items()) for image in images]
    return draw_contact_sheet([image for _, image in cells], [label for label, _ in cells], SHEET_EACH, 128)
