"""The pins of a source, in numbers, in words and on a sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image, draw_contact_sheet
from canvas.sources.manifest import ManifestSpec

SHEET_ROWS = 2_000  # of the pins table, from which the sheet's images are taken
SHEET_EACH = 12  # images of every kind and of every planted defect

COLUMNS = (
    "product_id", "title", "description", "alt_text", "board", "category", "promoted", "impressions", "saves", "clicks"
)  # fmt: skip
"""Columns of tables.PINS that a catalogue may lack."""

FILED = ("alt_text", "board", "category")
"""Columns that `filter` compares titles and descriptions with."""

TASKS = {"product_id": "products", "category": "categories", "board": "boards"}
"""Column -> what train_uve learns of it."""


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
    counts = dict.fromkeys(COLUMNS, 0)
    for batch in tables.read_batches(pins, COLUMNS):
        for name in COLUMNS:
            counts[name] += sum(value not in (None, "", False) for value in batch[name].to_pylist())
    return counts


def describe_catalogue(pins: Path, columns: Mapping[str, int], spec: ManifestSpec) -> list[str]:
    """Return lines that say what a catalogue has and lacks, and what every stage will therefore do.

    `columns` is what `count_columns` returns of `pins`.
    """
    table = tables.read(pins, ["product_id", "split"]).to_pylist()
    split_of = {row["product_id"]: row["split"] for row in table if row["product_id"] is not None}
    product_column = {} if "product_id" in spec.columns else {"product_id": 0}  # each pin has one of its own
    counts = {**columns, **product_column}
    has = [name if count == len(table) else f"{name} ({count} pins)" for name, count in counts.items() if count]
    held_out = sum(row["split"] != "train" for row in table)
    unseen = sum(split != "train" for split in split_of.values())
    whole = "" if spec.held_out_by == "product" else f", by {spec.held_out_by}"
    effects = {
        "has": ", ".join(has) or "photographs alone",
        "lacks": ", ".join([*(name for name, count in counts.items() if not count), "truth"]),
        "held out": f"{held_out} pins of {unseen} products{whole}: what was trained is scored on them"
        if held_out
        else "nothing: what was trained is scored on pins that training saw",
        **describe_stages({name for name, count in counts.items() if count}),
    }
    width = max(map(len, effects))
    title = f"{spec.name}: {len(table)} pins of {len(split_of)} products"
    return [title, *(f"  {name:{width}}  {effect}" for name, effect in effects.items())]


def describe_stages(columns: Collection[str]) -> dict[str, str]:
    """Return stage -> what it does with a catalogue without truth that has these of COLUMNS."""

    def select(*names: str) -> list[str]:
        return [name for name in names if name in columns]

    descriptions, filed, owner = select("title", "description"), select(*FILED), select("alt_text", "title")
    texts = (
        f"compares {', '.join(descriptions)} with {', '.join(filed)}" if descriptions and filed else "compares no texts"
    )
    scored = [*select("alt_text", "title", "description"), "generated captions"]  # in the order of CAPTION_PREFERENCE
    wanted = {"promoted pins": select("promoted"), "impressions": select("impressions")}
    missing = [name for name, there in (wanted | {"saves or clicks": select("saves", "clicks")}).items() if not there]
    return {
        "filter": texts if select("title", "description", "alt_text") else "asks for no texts",
        "train_captioner": f"learns from {owner[0]}, or takes init_from" if owner else "needs init_from: no text tells",
        "train_judges": "fits no judge of scenes: no score asks for the prompted scene",
        "train_segmenter": "needs init_from: nothing tells where products are",
        "train_clip": f"is scored with {scored[0]}",
        "train_uve": f"learns {', '.join([*map(TASKS.__getitem__, select(*TASKS)), 'backgrounds of captions'])}",
        "mine_styles": "finds clusters and boards" if select("board") else "finds clusters, no boards",
        "tune_engaged": f"hands on the backdrop LoRA: there are no {', '.join(missing)}"
        if missing
        else "learns from promoted pins with enough impressions",
        "sample_candidates": "names products by title, or by generated caption if product_name says so"
        if select("title")
        else "names products by generated caption",
        "evaluate": f"compares with {'no ' if missing else ''}engaged pins, has {'' if select('category') else 'no '}"
        "slices by category",
        "gate": "sets aside the limits of scenes, and says so",
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
