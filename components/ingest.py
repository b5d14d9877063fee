"""Stage `ingest`: the source becomes one table of pins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from canvas.pins import tables
from canvas.pins.engine import Engine
from canvas.pins.fallbacks import Notes
from canvas.ranges import Natural
from canvas.sources.manifest import ManifestSpec
from canvas.sources.showroom.spec import ShowroomSpec
from components.artifacts import Pins, Quarantine, RawData, Truth
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestParams:
    """Params section `ingest`; the source that is not chosen may be null."""

    source: Literal["showroom", "manifest"]  # of the pins: rendered products, or a catalogue of your own
    seed: Natural  # of what the showroom draws
    showroom: ShowroomSpec | None  # null with source manifest
    manifest: ManifestSpec | None  # null with source showroom

    def __post_init__(self) -> None:
        if getattr(self, self.source) is None:
            raise ValueError(f"ingest.source is {self.source} but ingest.{self.source} is null: describe it there")

    def fingerprint_outside(self, root: Path) -> Mapping[str, str]:
        """Ask for the list of a manifest that lies elsewhere than in the project's data (ReadsOutside)."""
        if self.source == "showroom" or self.manifest is None:
            return {}
        from canvas.sources.manifest import fingerprint_manifest

        return fingerprint_manifest(self.manifest, root / RawData.path)


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
    """Make the pins table: render the showroom, or read a manifest of images and print what it has.

    The sheet shows pins of every kind, then the planted defects.
    """
    from canvas.pins.images import encode_png
    from canvas.sources.manifest import ingest_manifest
    from canvas.sources.showroom.render import write_showroom
    from canvas.sources.summary import count_columns, count_pins, describe_catalogue, draw_source_sheet

    quarantined: Mapping[str, int] = {}
    more: dict[str, object] = {}
    if ingest.source == "showroom":
        assert ingest.showroom is not None
        write_showroom(raw.path / "showroom", ingest.showroom, ingest.seed, engine.threads, pins.path, truth.path)
        tables.write(quarantine.path, [], tables.QUARANTINE)
    else:
        assert ingest.manifest is not None
        notes = Notes()
        quarantined = ingest_manifest(ingest.manifest, raw.path, pins.path, quarantine.path, notes)
        tables.write(truth.path, [], tables.TRUTH)
        columns = count_columns(pins.path)
        more = {"columns": columns, **notes.to_metrics()}
        print("\n".join(describe_catalogue(pins.path, columns, ingest.manifest)), file=sys.stderr)
    metrics.write(count_pins(pins.path, truth.path, quarantined) | more)
    sheet.write(encode_png(draw_source_sheet(pins.path, truth.path)))
