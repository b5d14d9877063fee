"""A shop's catalogue without truth goes through the whole graph, with the params of the tutorial as they stand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.pins.fallbacks import Notes
from canvas.pins.images import decode_image
from canvas.sources.manifest import ManifestSpec, ingest_manifest
from evaluation.pages.html import CONTENT_POLICY
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections, read_section
from lifecycle.declare.profiles import merge_sections
from lifecycle.record.recording import read_notes
from lifecycle.registry.pinned import restore_inputs
from lifecycle.run.stage import run_stage
from tests.catalogue import (
    HOSTILE_TITLE,
    PHOTOS,
    ROOT,
    read_page_params,
    take_photos,
    train_models,
    write_catalogue,
)

PHOTOGRAPHS = 60


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small segmenter and captioner of the library's own."""
    folder = tmp_path_factory.mktemp("public")
    train_models(folder)
    return folder


@pytest.fixture(scope="module")
def project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage ran on the catalogue, at profile tiny."""
    return run_graph(tmp_path_factory.mktemp("project"), models, PHOTOGRAPHS, read_page_params())


@pytest.fixture(scope="module")
def bare_project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a diffusion transformer and a few photographs, of which the list says nothing, none of them held
    out."""
    params = read_page_params()
    params["ingest"]["manifest"] |= {"columns": {"image": "photo"}, "held_out": 0.0}
    params["expectations"] = {"min_pins": 5}
    return run_graph(tmp_path_factory.mktemp("bare"), models, 2 * PHOTOS, params, "tiny+dit")


def run_graph(root: Path, models: Path, photographs: int, params: dict[str, Any], profile: str = "tiny") -> Path:
    """Run every stage on a catalogue of so many photographs, with `params` over a profile; return the project."""
    write_catalogue(root / "data", photographs)
    for section, model in (("train_segmenter", "segmenter"), ("train_captioner", "captioner")):
        shutil.copytree(models / model, root / params[section]["init_from"])
    for pin in ROOT.glob("?*.dvc"):
        shutil.copy(pin, root)
    stages = load_stages()
    restore_inputs(stages, root)
    sections = merge_sections(load_sections(profile, ROOT), params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PYTHONPATH", str(ROOT))  # the engine's processes start in the project
        for stage in stages:
            if stage.pipeline == "train":
                inputs, outputs = (
                    {argument: Path(artifact.path) for argument, artifact in side.items()}
                    for side in (stage.inputs, stage.outputs)
                )
                run_stage(stage, sections, inputs, outputs, send=False)
    return root


def notes(project: Path, stage: str) -> list[str]:
    return read_notes(project / f"reports/{stage}/metrics.json")


def test_it_ends_registered_and_pending(project: Path) -> None:
    verdict = json.loads((project / "artifacts/verdict.json").read_text())
    assert verdict["outcome"] == "pending", verdict["reasons"]
    assert any("no truth is known of any pin" in reason for reason in verdict["reasons"])
    registered = json.loads((project / "artifacts/registered.json").read_text())
    assert registered["canvas-background"]["version"] == "1"
    assert "Pending" in (project / "reports/review/report.html").read_text()


def test_both_families_go_through_the_whole_graph(project: Path, bare_project: Path) -> None:
    for root, component, other in ((project, "unet", "transformer"), (bare_project, "transformer", "unet")):
        assert (root / "models/canvas" / component / "config.json").is_file()
        assert not (root / "models/canvas" / other).exists()
        by_stage = json.loads((root / "reports/evaluate_backdrop/metrics.json").read_text())["by_stage"]
        assert {"base", "inpaint", "backdrop"} <= by_stage.keys()


def test_every_stage_measured_and_said_what_it_missed(project: Path) -> None:
    assert tables.read(project / "artifacts/truth").num_rows == 0
    written = {path.parent.name for path in project.glob("reports/*/metrics.json")}
    assert {
        stage.name for stage in load_stages() if stage.pipeline == "train" and "metrics" in stage.outputs
    } <= written
    assert notes(project, "train_clip") == ["no pin has a caption from alt, so title stood for it"]
    assert any("task board has 0 classes" in note for note in notes(project, "train_uve"))
    engaged = json.loads((project / "reports/tune_engaged/metrics.json").read_text())
    seen = "100 impressions and a save or click"
    assert engaged["skipped"] == f"no promoted product pin to train on has {seen}, no LoRA is made"
    assert notes(project, "train_vae") == notes(project, "train_backdrop") == []


def test_photographs_of_a_product_stay_together_and_bad_rows_are_told(project: Path) -> None:
    pins = tables.read(project / "artifacts/pins", ["pin_id", "product_id", "split"]).to_pylist()
    assert len(pins) == len({pin["pin_id"] for pin in pins}) == PHOTOGRAPHS
    assert len({(pin["product_id"], pin["split"]) for pin in pins}) == PHOTOGRAPHS / PHOTOS
    assert {pin["split"] for pin in pins} == {"train", "unseen_product"}
    reasons = tables.read(project / "artifacts/quarantine").to_pylist()
    assert [row["row"] for row in reasons] == [61, 62, 63]
    assert [reason["reason"].partition(":")[0] for reason in reasons] == [
        "not a JPEG, PNG or WEBP image", "cannot fetch", "the same image occurred before"
    ]  # fmt: skip


def test_hostile_texts_do_nothing_on_any_page(project: Path) -> None:
    titles = tables.read(project / "artifacts/pins", ["title"])["title"].to_pylist()
    assert titles.count(HOSTILE_TITLE) == PHOTOS
    sites = list((project / "reports").rglob("*.html"))
    assert len(sites) > 10
    for site in sites:
        page = site.read_text(encoding="utf-8")
        assert page.index(CONTENT_POLICY) < page.index("<title>"), site
        if "docs" not in site.parts:  # Great Expectations does not escape, there the policy holds alone
            assert "<script" not in page, site
            assert "<img src=http" not in page, site
    monitored = (project / "reports/monitor/report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in monitored


def test_photographs_alone_end_registered_and_pending(bare_project: Path) -> None:
    verdict = json.loads((bare_project / "artifacts/verdict.json").read_text())
    assert verdict["outcome"] == "pending", verdict["reasons"]
    assert json.loads((bare_project / "artifacts/registered.json").read_text())["canvas-background"]["version"] == "1"
    pins = tables.read(bare_project / "artifacts/pins").to_pylist()
    assert {pin["split"] for pin in pins} == {"train"}
    assert [pin["product_id"] for pin in pins] == [pin["pin_id"] for pin in pins]
    for stage in ("train_vae", "train_clip", "train_uve"):
        assert "no pin is held out, so pins that training saw were scored" in notes(bare_project, stage)
    assert any("no pin of the selection is held out" in note for note in notes(bare_project, "train_backdrop"))
    assert notes(bare_project, "filter") == ["no pin has a title, description or alt text, so none was asked for"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_encoding_in_every_list_shows_the_photograph(tmp_path: Path, suffix: str) -> None:
    start_engine(Engine(runner="native", ray_address=None, threads=2))
    count = 2 * PHOTOS
    write_catalogue(tmp_path / "data", count, (suffix,))
    section = read_page_params()["ingest"]["manifest"] | {"path": f"catalogue.{suffix}", "format": suffix}
    spec = read_section(ManifestSpec, "manifest", {"manifest": section})
    ingest_manifest(spec, tmp_path / "data", tmp_path / "pins", tmp_path / "quarantine", Notes())
    pins = tables.read(tmp_path / "pins").to_pylist()
    assert len(pins) == count
    for pin, photo in zip(pins, take_photos(count, seed=0), strict=True):
        decoded = decode_image(pin["image"])
        assert decoded.size == (pin["width"], pin["height"]) == photo.image.size
        assert decoded.mode in ("RGB", "RGBA")
