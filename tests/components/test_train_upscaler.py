from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from canvas.upscaler.model import Upscaler
from components.train_upscaler import train_upscaler
from lifecycle.declare.skipping import is_made
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.generator_parts import write_vae
from tests.components.mugs import Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars

SMALL = {"side": 32, "crop": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A catalogue of pins of 60 and more pixels, and an autoencoder."""
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_sidecars(folder)
    write_vae(folder / "vae")
    return folder


def run(data: Path, out: Path, log: Log, scratch: Path, **changes) -> dict:
    out.mkdir()
    train_upscaler(
        **tiny(train_upscaler, **changes),
        **{name: Input(data / name) for name in ("pins", "kept", "masks")},
        raw=Input(data),
        autoencoder=Input(data / "vae"),
        model=Output(out / "upscaler"),
        metrics=Output(out / "metrics.json"),
        losses=Output(out / "losses.csv"),
        sheet=Output(out / "sheet.png"),
        log=log,
        scratch=Scratch(scratch),
    )
    return json.loads((out / "metrics.json").read_text())


def test_it_is_scored_beside_a_cubic_filter_and_goes_on_when_killed(data: Path, tmp_path: Path) -> None:
    log = Log()
    figures = run(data, tmp_path / "out", log, tmp_path / "scratch", **SMALL)
    assert log.steps == [2, 4]
    assert log.pictures == ["samples-000004"]
    for name in ("x2", "x4"):
        scores = figures[name]
        assert scores["images"] == 2
        assert scores["psnr_db_gain_low"] <= scores["psnr_db_gain"] <= scores["psnr_db_gain_high"]
        assert scores["psnr_db"] - scores["psnr_db_cubic"] == pytest.approx(scores["psnr_db_gain"])
        assert scores["perceptual_cut"] <= 1
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 5 * 32
    trained = Upscaler.from_pretrained(tmp_path / "out" / "upscaler")
    assert any(head.weight.abs().max() > 0 for head in trained.heads.values())
    again = Log()
    run(data, tmp_path / "again", again, tmp_path / "scratch", **SMALL)
    assert again.steps == []
    other = Upscaler.from_pretrained(tmp_path / "again" / "upscaler")
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train": None}, "train_upscaler.train is null"),
        ({"side": 128}, "no kept pin of the train split has 128 pixels"),
    ],
)
def test_without_training_or_large_pins_it_is_skipped(data: Path, tmp_path: Path, changes: dict, reason: str) -> None:
    figures = run(data, tmp_path / "out", Log(), tmp_path / "scratch", **changes)
    assert figures["skipped"].startswith(reason)
    assert not is_made(tmp_path / "out" / "upscaler")


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="side is 40: the autoencoder reads a quarter of it in cells of 8"):
        tiny(train_upscaler, side=40)
    with pytest.raises(ValueError, match="crop is 17: small images have 16 pixels a side"):
        tiny(train_upscaler, crop=17)
