import pytest
from PIL import Image

from canvas.light.model import load_light
from canvas.light.shadow.model import load_shadow
from canvas.pins import tables
from components.train_light import train_light
from lifecycle.declare.skipping import is_made, read_skip_reason
from tests.components.mugs import Log, run_tiny


def test_a_network_is_trained_on_train_and_scored_on_held_out_pins(mugs, tmp_path):
    log = Log()
    figures = run_tiny(train_light, mugs, tmp_path / "out", log, sheet_pins=2)
    assert log.steps == [2, 4, 2, 4]  # of both networks
    assert (figures["train_pins"], figures["pins"], figures["unseen_view"]["pins"]) == (8, 3, 2)
    assert figures["unlit_error"] == pytest.approx(0.1, abs=1e-6)
    assert figures["error_low"] <= figures["error"] <= figures["error_high"]
    assert load_light(tmp_path / "out" / "model").config["image_size"] == 16
    assert load_shadow(tmp_path / "out" / "model" / "shadow").config["image_size"] == 16
    shadow = figures["shadow"]
    assert (shadow["pins"], shadow["products"], shadow["unseen_view"]["pins"]) == (3, 3, 2)
    assert 0.05 < shadow["none_error"] < 0.4
    assert shadow["none_rate"] == 0.5
    assert shadow["error_share_of_none_low"] <= shadow["error_share_of_none"] <= shadow["error_share_of_none_high"]
    assert Image.open(tmp_path / "out" / "sheet.png").size == (4 * 166 + 6, 2 * (2 * 182 + 6))


def test_without_a_shadow_network_the_light_is_the_same(mugs, tmp_path):
    figures = run_tiny(train_light, mugs, tmp_path / "out", shadow=None)
    both = run_tiny(train_light, mugs, tmp_path / "both")
    assert "shadow" not in figures
    assert not (tmp_path / "out" / "model" / "shadow").exists()
    names = figures.keys() - {"images_per_second", "seconds"}
    assert {name: both[name] for name in names} == {name: figures[name] for name in names}


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
