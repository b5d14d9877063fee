from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.engine import Engine
from canvas.pins.images import encode_jpeg
from canvas.sources.manifest import ManifestSpec
from canvas.sources.showroom.spec import DEFECTS, ShowroomSpec
from components.ingest import IngestParams, ingest
from components.validate import validate
from evaluation.tables.spec import Limits
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.stage import Input, Output, Scratch
from tests.canvas.showroom_files import write_showroom_files

ENGINE = Engine(runner="native", ray_address=None, threads=2)
SHOWROOM = ShowroomSpec(
    pins=36, on_white=0.1, scene_only=0.1, unseen_product=0.1, unseen_view=0.1, unseen_both=0.1, defective=0.25
)
PARAMS = IngestParams(source="showroom", seed=0, showroom=SHOWROOM, manifest=None)
MANIFEST = ManifestSpec(
    path="list.csv",
    format="csv",
    name="shop",
    columns={"pin_id": "id", "image": "file", "title": "name"},
    held_out=0.0,
    held_out_by="product",
    max_bytes=10**6,
    max_pixels=10**6,
    connections=2,
    timeout_seconds=1.0,
    download_seconds=5.0,
    roots=[],
    hosts=None,
    user_agent="shop-reader",
)


TEXT = "it is text, which begins with 'no picture'"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_showroom_files(folder)
    return folder


def run(params: IngestParams, raw: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    outputs = {name: Output(out / name) for name in ingest.outputs}
    ingest(ingest=params, engine=ENGINE, raw=Input(raw), **outputs)  # type: ignore[arg-type]
    counts: dict[str, Any] = json.loads((out / "metrics").read_text())
    return counts


def test_showroom_gives_the_same_bytes_twice(data: Path, tmp_path: Path) -> None:
    counts = run(PARAMS, data, tmp_path / "a")
    assert run(PARAMS, data, tmp_path / "b") == counts
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_showroom_counts_and_sheet(data: Path, tmp_path: Path) -> None:
    counts = run(PARAMS, data, tmp_path / "out")
    assert counts["pins"] == 36
    assert counts["defect"] == dict.fromkeys(sorted(DEFECTS), 1)
    assert sum(counts["split"].values()) == sum(counts["kind"].values()) == 36
    assert tables.read(tmp_path / "out/pins").schema == tables.PINS
    assert tables.read(tmp_path / "out/truth").schema == tables.TRUTH
    assert tables.read(tmp_path / "out/quarantine").num_rows == 0
    assert Image.open(io.BytesIO((tmp_path / "out/sheet").read_bytes())).width == 12 * 134 + 6


def test_manifest_gives_the_same_tables(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.jpg").write_bytes(encode_jpeg(Image.new("RGB", (30, 20), "teal")))
    (raw / "text.jpg").write_text("no picture")
    with (raw / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "file", "name"), ("1", "a.jpg", "A"), ("2", "text.jpg", "B")])
    params = replace(PARAMS, source="manifest", showroom=None, manifest=MANIFEST)
    counts = run(params, raw, tmp_path / "out")
    assert (counts["pins"], counts["quarantined"], counts["split"]) == (1, 1, {"train": 1})
    assert tables.read(tmp_path / "out/pins").schema == tables.PINS
    assert tables.read(tmp_path / "out/truth").num_rows == 0
    assert tables.read(tmp_path / "out/quarantine").to_pylist() == [
        {"row": 2, "uri": "text.jpg", "reason": f"not a JPEG, PNG or WEBP image: {TEXT}"}
    ]


def test_saves_without_impressions_stop_nothing_and_what_is_lacking_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abc":
        (raw / f"{name}.jpg").write_bytes(encode_jpeg(Image.new("RGB", (30, 20), "teal")))
    rows = [("sku", "photo", "title", "saved", "clicked"), ("1", "a.jpg", "Mug one", "10", "1")]
    rows += [("2", "b.jpg", "Mug two", "3", "0"), ("2b", "c.jpg", "Mug two", "", "")]
    with (raw / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = {"pin_id": "sku", "image": "photo", "title": "title", "saves": "saved", "clicks": "clicked"}
    manifest = replace(MANIFEST, columns=columns, held_out=0.1)
    counts = run(replace(PARAMS, source="manifest", showroom=None, manifest=manifest), raw, tmp_path / "out")
    assert counts["columns"]["saves"] == 2
    assert set(counts["split"]) == {"train", "unseen_product"}
    assert counts["notes"] == ["by its hash no product of 3 is held out, so the nearest to it changed sides"]
    printed = capsys.readouterr().err
    assert "shop: 3 pins of 3 products" in printed
    assert "tune_engaged       hands on the backdrop LoRA: there are no promoted pins, impressions" in printed
    validate(
        expectations=Limits(min_pins=1, max_broken=0.2, max_untitled=0.2, max_rejected_masks=0.5),
        pins=Input(tmp_path / "out/pins"),
        metrics=Output(tmp_path / "checks.json"),
        report=Output(tmp_path / "report.html"),
        docs=Output(tmp_path / "docs"),
        scratch=Scratch(tmp_path),
    )
    assert json.loads((tmp_path / "checks.json").read_text())["pins"]["critical"] == 0


def test_missing_package_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"populatedb_data\.json is missing: build the demo data with `make data`"):
        run(PARAMS, tmp_path / "nowhere", tmp_path / "out")


def test_the_chosen_source_must_be_described() -> None:
    with pytest.raises(ValueError, match=r"ingest\.source is manifest but ingest\.manifest is null"):
        replace(PARAMS, source="manifest")


@pytest.mark.parametrize("profile", ["demo", "tiny"])
def test_shipped_params_are_read(profile: str) -> None:
    params = read_stage_params(ingest, load_sections(profile))["ingest"]
    assert params.source == "showroom"
    assert params.showroom.defective > 0.15
