import pytest
from PIL import Image

from canvas.light.model import load_light
from canvas.pins import tables
from components.train_light import train_light
from lifecycle.declare.skipping import is_made, read_skip_reason
from tests.components.mugs import Log, run_tiny


def test_a_network_is_trained_on_train_and_scored_on_held_out_pins(mugs, tmp_path):
    log = Log()
    figures = run_tiny(train_light, mugs, tmp_path / "out", log, sheet_pins=2)
    assert log.steps == [2, 4]
    assert (figures["train_pins"], figures["pins"], figures["unseen_view"]["pins"]) == (8, 3, 2)
    assert figures["unlit_error"] == pytest.approx(0.1, abs=1e-6)
    assert figures["error_low"] <= figures["error"] <= figures["error_high"]
    assert load_light(tmp_path / "out" / "model").config["image_size"] == 16
    assert Image.open(tmp_path / "out" / "sheet.png").width == 3 * 166 + 6


def test_a_catalogue_whose_light_nobody_knows_goes_without(mugs, tmp_path):
    for name in ("pins", "kept"):
        (tmp_path / name).symlink_to(mugs / name)
    tables.write(tmp_path / "truth", [], tables.TRUTH)
    figures = run_tiny(train_light, tmp_path, tmp_path / "out")
    assert "truth knows the light of no training pin" in figures["skipped"]
    assert not is_made(tmp_path / "out" / "model")
    assert read_skip_reason(tmp_path / "out" / "model") == figures["skipped"]


def test_without_training_there_is_no_mode_soft(mugs, tmp_path):
    assert run_tiny(train_light, mugs, tmp_path / "out", train=None)["skipped"] == (
        "train_light.train is null, the generator has no mode soft"
    )
