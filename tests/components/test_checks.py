"""Stages `validate`, `validate_tables` and `monitor` on the painted catalogue, good and spoilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from canvas.pins import tables
from components.monitor import monitor
from components.validate import validate
from components.validate_tables import validate_tables
from evaluation.tables.spec import Limits
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.mugs import tiny, write_catalogue

LIMITS = Limits(min_pins=10, max_broken=0.2, max_untitled=0.2, max_rejected_masks=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue, with engagement, and with masks and captions of its kept pins."""
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    rows = [
        row | {"impressions": 100, "saves": 5, "clicks": 2, "board": "Mugs", "promoted": False, "source": "test"}
        for row in tables.read(folder / "pins").to_pylist()
    ]
    tables.write(folder / "catalogue", [pa.Table.from_pylist(rows, tables.PINS)], tables.PINS)
    kept = [row["pin_id"] for row in tables.read(folder / "kept").to_pylist() if row["kept"]]
    masks = [{"pin_id": i, "mask": b"png", "alpha": b"png", "confidence": 0.9, "box": None} for i in kept]
    tables.write(folder / "masks", [pa.Table.from_pylist(masks, tables.MASKS)], tables.MASKS)
    captions = [{"pin_id": i, "source": "generated", "caption": "red mug, in a lobby"} for i in kept]
    tables.write(folder / "captions", [pa.Table.from_pylist(captions, tables.CAPTIONS)], tables.CAPTIONS)
    return folder


def checked(data: Path, out: Path, limits: Limits = LIMITS) -> dict[str, Any]:
    validate(
        expectations=limits,
        pins=Input(data / "catalogue"),
        metrics=Output(out / "metrics.json"),
        report=Output(out / "report.html"),
        docs=Output(out / "docs"),
        scratch=Scratch(out),
    )
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def test_valid_pins_leave_figures_a_page_and_data_docs(data: Path, tmp_path: Path) -> None:
    assert checked(data, tmp_path)["pins"]["critical"] == 0
    assert "expectations are met" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "docs" / "index.html").is_file()


def test_too_few_pins_stop_the_run_and_leave_the_page(data: Path, tmp_path: Path) -> None:
    limits = Limits(min_pins=1000, max_broken=0.2, max_untitled=0.2, max_rejected_masks=0.5)
    with pytest.raises(ValueError, match=r"^pins: expect_table_row_count_to_be_between\(min_value=1000\) \(found 18\)"):
        checked(data, tmp_path, limits)
    assert (tmp_path / "validation.html").is_file()
    assert not (tmp_path / "metrics.json").exists()


def sidecars(data: Path, out: Path, **other: Path) -> dict[str, Any]:
    places = {name: data / name for name in ("kept", "masks", "captions")} | other
    validate_tables(
        expectations=LIMITS,
        pins=Input(data / "catalogue"),
        kept=Input(places["kept"]),
        masks=Input(places["masks"]),
        captions=Input(places["captions"]),
        metrics=Output(out / "metrics.json"),
        report=Output(out / "report.html"),
        docs=Output(out / "docs"),
        scratch=Scratch(out),
    )
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def test_valid_sidecars(data: Path, tmp_path: Path) -> None:
    metrics = sidecars(data, tmp_path)
    assert metrics.keys() == {"kept", "masks", "captions"}
    assert all(table["critical"] == 0 for table in metrics.values())


def test_caption_of_an_unknown_pin_stops_the_run(data: Path, tmp_path: Path) -> None:
    rows = [{"pin_id": "stranger", "source": "title", "caption": "who?"}]
    tables.write(tmp_path / "captions", [pa.Table.from_pylist(rows, tables.CAPTIONS)], tables.CAPTIONS)
    with pytest.raises(ValueError, match=r"captions\.known: .* for example pins stranger"):
        sidecars(data, tmp_path, captions=tmp_path / "captions")


@pytest.mark.parametrize(("name", "schema"), [("kept", tables.KEPT), ("masks", tables.MASKS)])
def test_table_that_lacks_a_pin_stops_the_run(data: Path, tmp_path: Path, name: str, schema: pa.Schema) -> None:
    table = tables.read(data / name)
    tables.write(tmp_path / name, [table.slice(1)], schema)
    with pytest.raises(ValueError, match=rf"{name}\.present: .* for example pins {table['pin_id'][0]}"):
        sidecars(data, tmp_path, **{name: tmp_path / name})


def test_mask_of_a_dropped_pin_stops_the_run(data: Path, tmp_path: Path) -> None:
    kept = tables.read(data / "kept").to_pylist()
    dropped = next(row["pin_id"] for row in kept if row["kept"])
    rows = [row | {"kept": row["kept"] and row["pin_id"] != dropped} for row in kept]
    tables.write(tmp_path / "kept", [pa.Table.from_pylist(rows, tables.KEPT)], tables.KEPT)
    with pytest.raises(ValueError, match=rf"masks\.known: .* for example pins {dropped}"):
        sidecars(data, tmp_path, kept=tmp_path / "kept")


def drifted(data: Path, out: Path, **changes: object) -> dict[str, Any]:
    out.mkdir()
    monitor(
        **tiny(monitor, **changes),
        pins=Input(data / "catalogue"),
        kept=Input(data / "kept"),
        metrics=Output(out / "drift.json"),
        report=Output(out / "drift.html"),
    )
    assert "<html" in (out / "drift.html").read_text()
    drift: dict[str, Any] = json.loads((out / "drift.json").read_text())
    return drift


def test_a_split_has_not_drifted_from_itself(data: Path, tmp_path: Path) -> None:
    drift = drifted(data, tmp_path / "out", current=("train",))
    assert drift["verdict"] == {"drift": 0, "drifted_columns": 0}
    assert max(drift["distance"].values()) == 0


def test_another_version_is_compared(data: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    rows = [row | {"category": "Hats", "impressions": 9000} for row in tables.read(data / "catalogue").to_pylist()]
    tables.write(version / "pins", [pa.Table.from_pylist(rows, tables.PINS)], tables.PINS)
    tables.write(version / "kept", [tables.read(data / "kept")], tables.KEPT)
    drift = drifted(data, tmp_path / "out", reference_version=str(version), current=("train",))
    assert drift["distance"]["category"] > 0.5
    assert drift["verdict"]["drifted_columns"] == 2


def test_other_splits_stand_for_one_without_pins(data: Path, tmp_path: Path) -> None:
    drift = drifted(data, tmp_path / "out", current=("unseen_both",))
    assert [name for name in drift["notes"] if name.startswith("no usable pin of unseen_both, so those of")]
