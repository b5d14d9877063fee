"""The pins of a source, in numbers, in words and on a sheet."""

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

EFFECTS = {
    "title": ("names a product that its caption does not", "captions name the products"),
    "description": ("is compared with alt text, board and category by filter", "nothing is compared with it"),
    "alt_text": ("scores train_clip", "title scores train_clip, else description, else generated captions"),
    "board": (
        "is a task of train_uve, and may be a style",
        "train_uve learns no boards, mine_styles finds clusters only",
    ),
    "category": ("is a task of train_uve and a slice of evaluate", "train_uve learns none, evaluate has no such slice"),
    "product_id": ("parts held-out products from the others", "every image is a background"),
    "promoted": ("tune_engaged learns from them", "tune_engaged hands on the backdrop LoRA as it is"),
    "impressions": ("are what saves and clicks are rates of", "tune_engaged hands on the backdrop LoRA as it is"),
    "saves": ("count as engagement", "clicks alone count"),
    "clicks": ("count as engagement", "saves alone count"),
}
"""Column of tables.PINS -> what stages do with it, and without it."""

WITHOUT_TRUTH = (
    "truth is known of no pin: masks and captions are those of train_segmenter.init_from and train_captioner.init_from,"
    " train_judges fits no judge, no score asks for the scene, and gate sets aside the limits that do"
)


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


def count_columns(pins: Path) -> dict[str, int]:
    """Return the columns that a catalogue may have -> the number of pins that have a value there."""
    table = tables.read(pins, list(EFFECTS))
    return {name: sum(1 for value in table[name].to_pylist() if value not in (None, "", False)) for name in EFFECTS}


def describe_catalogue(pins: Path, name: str) -> list[str]:
    """Return lines that say what a catalogue without truth has, and what the stages will therefore do."""
    table = tables.read(pins, ["product_id", "split"])
    split_of = dict(zip(table["product_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    held_out = table.num_rows - table["split"].to_pylist().count("train")
    products = [split for product, split in split_of.items() if product is not None]
    counts = count_columns(pins)
    return [
        f"{name}: {table.num_rows} pins of {len(products)} products",
        *(f"  {column:12} {count or 'none':>8}  {EFFECTS[column][not count]}" for column, count in counts.items()),
        f"  {'held out':12} {held_out or 'none':>8}  of {len(products) - products.count('train')} products: score what "
        "was trained; where there are none, pins that training saw do",
        f"  {WITHOUT_TRUTH}",
    ]


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
