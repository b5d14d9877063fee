import json
from pathlib import Path

import pytest
from PIL import Image

from canvas.light.model import load_light
from canvas.pins import tables
from components.train_light import train_light
from lifecycle.declare.skipping import is_made, read_skip_reason
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.mugs import Log, tiny, write_catalogue


def run(data: Path, out: Path, log: Log | None = None, **changes: object) -> dict:
    out.mkdir()
    train_light(
        **tiny(train_light, **changes),
        pins=Input(data / "pins"),
        kept=Input(data / "kept"),
        truth=Input(data / "truth"),
        model=Output(out / "model"),
        metrics=Output(out / "metrics.json"),
        losses=Output(out / "losses.csv"),
        sheet=Output(out / "sheet.png"),
        log=log or Log(),
        scratch=Scratch(out / "scratch"),
    )
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    return folder


def test_a_network_is_trained_on_train_and_scored_on_held_out_pins(data, tmp_path):
    log = Log()
    figures = run(data, tmp_path / "out", log, sheet_pins=2)
    assert log.steps == [2, 4]
    assert (figures["train_pins"], figures["pins"], figures["unseen_view"]["pins"]) == (8, 3, 2)
    assert figures["unlit_error"] == pytest.approx(0.1, abs=1e-6)
    assert figures["error_low"] <= figures["error"] <= figures["error_high"]
    assert load_light(tmp_path / "out" / "model").config["image_size"] == 16
    assert Image.open(tmp_path / "out" / "sheet.png").width == 3 * 166 + 6


def test_a_catalogue_whose_light_nobody_knows_goes_without(data, tmp_path):
    for name in ("pins", "kept"):
        (tmp_path / name).symlink_to(data / name)
    tables.write(tmp_path / "truth", [], tables.TRUTH)
    figures = run(tmp_path, tmp_path / "out")
    assert "truth knows the light of no training pin" in figures["skipped"]
    assert not is_made(tmp_path / "out" / "model")
    assert read_skip_reason(tmp_path / "out" / "model") == figures["skipped"]


def test_without_training_there_is_no_mode_soft(data, tmp_path):
    assert run(data, tmp_path / "out", train=None)["skipped"] == (
        "train_light.train is null, the generator has no mode soft"
    )
