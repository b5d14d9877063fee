import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from canvas.vae.model import build_vae, get_latent_scale, load_vae
from components.train_clip import train_clip
from components.train_judges import train_judges
from components.train_vae import train_vae
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.generator_parts import write_towers
from tests.components.mugs import ROOT, Log, tiny, write_catalogue


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_towers(folder / "clip", tiny(train_clip)["text"])
    judge(folder)
    return folder


def judge(folder: Path) -> None:
    """The judges of the catalogue in `folder`."""
    tables = {name: Input(folder / name) for name in ("pins", "kept", "truth")}
    outputs = {name: Output(folder / name) for name in ("judges", "metrics")}
    train_judges(**tiny(train_judges), **tables, **outputs)


def run(data: Path, out: Path, log: Log | None = None, section: str = "train_vae", **changes) -> dict:
    out.mkdir()
    train_vae(
        **tiny(train_vae, section, **changes),
        pins=Input(data / "pins"),
        kept=Input(data / "kept"),
        truth=Input(data / "truth"),
        judges=Input(data / "judges"),
        clip=Input(data / "clip"),
        model=Output(out / "vae"),
        metrics=Output(out / "vae.json"),
        losses=Output(out / "vae.csv"),
        sheet=Output(out / "vae.png"),
        log=log or Log(),
        scratch=Scratch(out / "scratch"),
    )
    return json.loads((out / "vae.json").read_text())


def test_an_autoencoder_is_trained_with_its_statistics_and_scored(data, tmp_path):
    log = Log()
    figures = run(data, tmp_path / "out", log)
    assert log.steps == [2, 4]
    assert log.pictures == ["samples-000004"]
    assert figures["pins"] == 5
    assert figures["psnr_db_low"] <= figures["psnr_db"] <= figures["psnr_db_high"]
    assert set(figures["unseen_view"]) == {"psnr_db", "ssim", "perceptual_distance"}
    assert 0 <= figures["scene_accuracy_reconstructed"] <= 1
    assert figures["scene_accuracy_real"] == figures["scene_accuracy_sharp_real"] == 1  # two plain colours
    scale = get_latent_scale(load_vae(tmp_path / "out" / "vae"))
    assert (scale.std > 0).all()
    assert scale.mean.abs().max() > 0
    with Image.open(tmp_path / "out" / "vae.png") as sheet:
        assert sheet.width > 3 * 128
    assert len((tmp_path / "out" / "vae.csv").read_text().splitlines()) == 3


def test_a_public_autoencoder_is_used_as_it_is(data, tmp_path):
    """With its own scale: a public denoiser knows no other."""
    with pytest.raises(ValueError, match=r"or name vae\.init_from"):
        run(data, tmp_path / "none", train=None, objective=None)
    changes: dict[str, Any] = {"kind": "kl", "patch": None, "channels": [8, 8, 8, 8]}
    spec = replace(tiny(train_vae)["vae"], **changes | {"channels": (8, 8, 8, 8)})
    public = build_vae(spec, sample_size=64)
    public.register_to_config(scaling_factor=0.13025)
    public.save_pretrained(tmp_path / "public")
    sections = {
        "train_vae": {"train": None, "objective": None},
        "vae": changes | {"init_from": str(tmp_path / "public")},
    }
    params = read_stage_params(train_vae, merge_sections(load_sections("tiny", ROOT), sections))
    out = tmp_path / "out"
    out.mkdir()
    outputs = {name: Output(out / name) for name in ("model", "metrics", "losses", "sheet")}
    inputs = {name: Input(data / name) for name in ("pins", "kept", "truth", "judges", "clip")}
    train_vae(**params, **inputs, **outputs, log=Log(), scratch=Scratch(out / "scratch"))
    after = load_vae(out / "model")
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in public.state_dict().items())
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["scaling_factor"] == 0.13025
    assert config.get("latents_mean") is config.get("latents_std") is None
    raw = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(get_latent_scale(after).normalize(raw), raw * 0.13025)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"override": {"parallel": "fsdp"}}}, 'parallel is "fsdp": encode and decode are called'),
        ({"train": {"override": {"compile": True}}}, "compile is true: encode and decode are called"),
        ({"train": None}, "give both train and objective"),
    ],
)
def test_settings_that_it_cannot_heed_are_refused(change, message):
    with pytest.raises(ValueError, match=f"'train_vae': .*{message}"):
        tiny(train_vae, **change)


def test_frames_must_be_whole_cells(data, tmp_path):
    with pytest.raises(ValueError, match=r"frames\.buckets \[\(60, 68\)\] are no multiples of 8 pixels"):
        run(data, tmp_path / "out", section="frames", buckets=[[64, 64], [60, 68]])


def test_without_known_scenes_there_is_no_judge(data, tmp_path):
    write_catalogue(tmp_path, truth=False)
    (tmp_path / "clip").symlink_to(data / "clip")
    judge(tmp_path)
    figures = run(tmp_path, tmp_path / "out")
    assert not any("scene_accuracy" in name for name in figures)
    assert figures["psnr_db"] > 0
