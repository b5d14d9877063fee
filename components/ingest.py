"""Stage `ingest`: the source becomes one table of pins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.sources.manifest import ManifestSpec
from canvas.sources.showroom.spec import ShowroomSpec
from components.artifacts import Pins, Quarantine, RawData, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage

if TYPE_CHECKING:
    from PIL import Image

SHEET_ROWS = 2_000  # of the pins table, from which the sheet's pictures are taken
SHEET_EACH = 12  # pictures of every kind and of every planted defect


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestParams:
    """Params section `ingest`; the source that is not chosen may be null."""

    source: Literal["showroom", "manifest"]  # of the pins: rendered products, or a catalogue of your own
    seed: int  # of what the showroom draws
    showroom: ShowroomSpec | None  # null with source manifest
    manifest: ManifestSpec | None  # null with source showroom

    def __post_init__(self) -> None:
        if getattr(self, self.source) is None:
            raise ValueError(f"ingest.source is {self.source} but ingest.{self.source} is null: describe it there")


@stage(machine="cpu")
def ingest(
    ingest: IngestParams,
    engine: Engine,
    raw: Input[RawData],
    pins: Output[Pins],
    truth: Output[Truth],
    quarantine: Output[Quarantine],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Make the pins table: render the showroom, or read a manifest of pictures.

    The sheet shows pins of every kind, then the planted defects.
    """
    from canvas.pins.images import encode_png

    if ingest.source == "showroom":
        assert ingest.showroom is not None
        _render_showroom(ingest.showroom, ingest.seed, engine.threads, raw.path, pins.path, truth.path)
        tables.write(quarantine.path, [], tables.QUARANTINE)
        refused: Mapping[str, int] = {}
    else:
        assert ingest.manifest is not None
        refused = _ingest_manifest(ingest.manifest, engine, raw.path, pins.path, quarantine.path)
        tables.write(truth.path, [], tables.TRUTH)
    metrics.write(_count_pins(pins.path, truth.path, refused))
    sheet.write(encode_png(_draw_sheet(pins.path, truth.path)))


def _render_showroom(spec: ShowroomSpec, seed: int, threads: int, raw: Path, pins: Path, truth: Path) -> None:
    from tqdm import tqdm

    from canvas.sources.showroom.render import load_showroom, render_pins

    showroom = load_showroom(raw / "showroom", spec, seed)
    with (
        tables.Writer(pins, tables.PINS) as pin_rows,
        tables.Writer(truth, tables.TRUTH) as truth_rows,
        tqdm(total=spec.pins, desc="render", unit="pin") as bar,
    ):
        for rows in render_pins(showroom, threads):
            pin_rows.add(rows.pins)
            truth_rows.add(rows.truth)
            bar.update(rows.pins.num_rows)


def _ingest_manifest(spec: ManifestSpec, engine: Engine, raw: Path, pins: Path, quarantine: Path) -> Mapping[str, int]:
    from canvas.sources.manifest import ingest_manifest

    start_engine(engine)
    return ingest_manifest(spec, raw, pins, quarantine).quarantined


def _count_pins(pins: Path, truth: Path, refused: Mapping[str, int]) -> dict[str, object]:
    """Numbers of pins, whole and by split, kind and planted defect; of quarantined rows by reason."""
    table = tables.read(pins, ["split", "promoted", "width", "height"])
    known = tables.read(truth, ["kind", "defect"])
    return {
        "pins": table.num_rows,
        "promoted": sum(filter(None, table["promoted"].to_pylist())),
        "split": dict(sorted(Counter(table["split"].to_pylist()).items())),
        "kind": dict(sorted(Counter(known["kind"].to_pylist()).items())),
        "defect": dict(sorted(Counter(filter(None, known["defect"].to_pylist())).items())),
        "quarantined": sum(refused.values()),
        "quarantine": dict(sorted(refused.items())),
    }


def _draw_sheet(pins: Path, truth: Path) -> Image.Image:
    """Rows of pictures: the kinds of sound pins, then the planted defects; a manifest's pins by category."""
    from canvas.pins.images import decode_image, draw_contact_sheet

    known = tables.read(truth, ["pin_id", "kind", "defect"]).to_pylist()
    labels = {row["pin_id"]: (row["defect"] is not None, row["defect"] or row["kind"]) for row in known}
    groups: dict[tuple[bool, str], list[Image.Image]] = {}
    read = 0
    for batch in tables.read_batches(pins, ["pin_id", "image", "category"]):
        for row in batch.to_pylist():
            group = groups.setdefault(labels.get(row["pin_id"], (False, row["category"] or "pins")), [])
            if len(group) < SHEET_EACH:
                with suppress(ValueError):  # planted broken bytes
                    group.append(decode_image(row["image"]))
        read += batch.num_rows
        if read >= SHEET_ROWS:
            break
    shown = [(label, picture) for (_, label), pictures in sorted(groups.items()) for picture in pictures]
    return draw_contact_sheet([picture for _, picture in shown], [label for label, _ in shown], SHEET_EACH, 128)
