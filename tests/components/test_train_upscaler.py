from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from canvas.hub import SOURCE_FILE
from canvas.upscaler.diffusion import DiffusionUpscaler
from canvas.upscaler.loading import load_upscaler
from canvas.upscaler.model import Upscaler
from canvas.upscaler.rrdb import RrdbUpscaler
from components.train_upscaler import train_upscaler
from lifecycle.declare.skipping import is_made
from lifecycle.declare.stage import Input, Output, Scratch
from tests.canvas.upscaler.test_rrdb import build_rrdb
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


def run(data: Path, out: Path, log: Log, scratch: Path, sections: dict | None = None, **changes) -> dict:
    out.mkdir()
    train_upscaler(
        **tiny(train_upscaler, **changes) | (sections or {}),
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


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> Path:
    """A file of the Real-ESRGAN class."""
    file = tmp_path_factory.mktemp("public") / "tiny.pth"
    torch.save({"params_ema": build_rrdb().state_dict()}, file)
    return file


def test_public_weights_pass_through_and_are_scored(data: Path, tmp_path: Path, public: Path) -> None:
    changes = SMALL | {"train": None, "init_from": str(public)}
    figures = run(data, tmp_path / "out", Log(), tmp_path / "scratch", **changes)
    model = tmp_path / "out" / "upscaler"
    made = load_upscaler(model)
    assert isinstance(made, RrdbUpscaler)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), build_rrdb().parameters(), strict=True))
    assert json.loads((model / SOURCE_FILE).read_text())["repository"] == str(public)
    assert is_made(model)
    assert "skipped" not in figures
    assert "images_per_second" not in figures
    for name in ("x2", "x4"):
        assert figures[name]["psnr_db"] - figures[name]["psnr_db_cubic"] == pytest.approx(figures[name]["psnr_db_gain"])
        assert figures[name]["perceptual_cut"] <= 1
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 5 * 32


def test_public_weights_pass_through_unscored_where_pins_are_small(data: Path, tmp_path: Path, public: Path) -> None:
    changes = {"side": 128, "train": None, "init_from": str(public)}
    figures = run(data, tmp_path / "out", Log(), tmp_path / "scratch", **changes)
    assert figures["skipped"].startswith("no kept pin of the train split has 128 pixels")
    assert isinstance(load_upscaler(tmp_path / "out" / "upscaler"), RrdbUpscaler)


def test_training_goes_on_from_what_it_wrote(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = Upscaler(8, 1)
    before.save_pretrained(tmp_path / "before")
    changes = SMALL | {"init_from": str(tmp_path / "before")}
    run(data, tmp_path / "out", Log(), tmp_path / "scratch", **changes)
    after = Upscaler.from_pretrained(tmp_path / "out" / "upscaler")
    moved = [(a - b).abs().max() for a, b in zip(before.trunk.parameters(), after.trunk.parameters(), strict=True)]
    assert 0 < max(moved) < 0.05
    assert (tmp_path / "out" / "upscaler" / SOURCE_FILE).is_file()


def test_a_diffusion_upscaler_is_trained_by_params_and_goes_on(data: Path, tmp_path: Path) -> None:
    kind = {"upscaler": tiny(train_upscaler, "upscaler", kind="diffusion", steps=3)["upscaler"]}
    figures = run(data, tmp_path / "out", Log(), tmp_path / "scratch", kind, **SMALL)
    made = load_upscaler(tmp_path / "out" / "upscaler")
    assert isinstance(made, DiffusionUpscaler)
    assert made.config["steps"] == 3
    assert 0 < made.deviations.min() <= made.deviations.max() < 1
    assert all(head.weight.abs().max() > 0 for head in made.flow.heads.values())
    assert figures["parameters"] == made.num_parameters()
    assert figures["x2"]["psnr_db_low"] < figures["x2"]["psnr_db_high"]
    more = SMALL | {"init_from": str(tmp_path / "out" / "upscaler"), "train": None}
    fewer = {"upscaler": tiny(train_upscaler, "upscaler", kind="diffusion", steps=1)["upscaler"]}
    run(data, tmp_path / "more", Log(), tmp_path / "scratch2", fewer, **more)
    again = load_upscaler(tmp_path / "more" / "upscaler")
    assert again.config["steps"] == 1
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"holds DiffusionUpscaler, but upscaler\.kind is regression: make them agree"):
        run(data, tmp_path / "other", Log(), tmp_path / "scratch3", **more)


def test_what_cannot_be_trained_or_has_another_size_is_refused(data: Path, tmp_path: Path, public: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny\.pth is of the Real-ESRGAN class, which is used as it is"):
        run(data, tmp_path / "public", Log(), tmp_path / "scratch", init_from=str(public))
    Upscaler(16, 1).save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match=r"train_upscaler\.init_from .*wide differs in width"):
        run(data, tmp_path / "other", Log(), tmp_path / "scratch", init_from=str(tmp_path / "wide"))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="side is 40: the autoencoder reads a quarter of it in cells of 8"):
        tiny(train_upscaler, side=40)
    with pytest.raises(ValueError, match="crop is 17: small images have 16 pixels a side"):
        tiny(train_upscaler, crop=17)
