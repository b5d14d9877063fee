"""Weights of the Real-ESRGAN class in the forms in which they are published."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from canvas.upscaler.loading import OLD_NAMES, fetch_upscaler, load_rrdb, load_upscaler
from canvas.upscaler.model import Upscaler
from canvas.upscaler.rrdb import RrdbUpscaler
from tests.canvas.upscaler.test_model import build_moved, draw
from tests.canvas.upscaler.test_rrdb import build_rrdb


def rename_to_old(name: str) -> str:
    for old, new in OLD_NAMES:
        name = name.replace(new, old)
    return name


def is_equal(made: torch.nn.Module, expected: torch.nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(made(*draw(2)), expected(*draw(2)))


def test_every_form_of_a_file_is_read(tmp_path: Path) -> None:
    network = build_rrdb(blocks=2)
    weights = network.state_dict()
    wrong = {name: torch.zeros_like(value) for name, value in weights.items()}
    save_file(weights, tmp_path / "plain.safetensors")
    for name, content in {
        "plain.pth": weights,
        "averaged.pth": {"params": wrong, "params_ema": weights},
        "nested.pth": {"params": weights},
        "old.pth": {rename_to_old(name): value for name, value in weights.items()},
    }.items():
        torch.save(content, tmp_path / name)
    assert "RRDB_trunk.1.RDB3.conv5.bias" in torch.load(tmp_path / "old.pth", weights_only=True)
    for file in tmp_path.iterdir():
        made, source = fetch_upscaler(str(file))
        assert (made.config["features"], made.config["blocks"], made.config["growth"]) == (8, 2, 4)
        assert not made.training
        assert is_equal(made, network)
        assert source["repository"] == str(file)


def test_a_directory_is_read_by_what_it_holds(tmp_path: Path) -> None:
    ours, network = build_moved(), build_rrdb()
    ours.save_pretrained(tmp_path / "ours")
    network.save_pretrained(tmp_path / "saved")
    (tmp_path / "public").mkdir()
    torch.save(network.state_dict(), tmp_path / "public" / "RealESRGAN_x4plus.pth")
    (tmp_path / "public" / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
    loaded = load_upscaler(tmp_path / "ours")
    assert isinstance(loaded, Upscaler)
    assert is_equal(loaded, ours)
    for name in ("saved", "public"):
        loaded, source = fetch_upscaler(str(tmp_path / name))
        assert isinstance(loaded, RrdbUpscaler)
        assert is_equal(loaded, network)
    assert source["licence"] == "bsd-3-clause"


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    torch.save({name: value.half() for name, value in build_rrdb().state_dict().items()}, tmp_path / "half.pth")
    assert load_rrdb(tmp_path / "half.pth").dtype == torch.float32


class Code:
    """What a pickle may run, and a file of weights may not."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    torch.save({"params": Code(tmp_path / "run")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read as weights"):
        load_upscaler(tmp_path / "bad.pth")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv_first.weight": None}, "holds no network of the Real-ESRGAN class"),
        ({"body.0.rdb2.conv3.bias": None}, "differs in body.0.rdb2.conv3.bias"),
        ({"conv_first.weight": torch.zeros(8, 12, 3, 3)}, "differs in conv_first.weight"),
        ({"conv_up3.weight": torch.zeros(8, 8, 3, 3)}, "differs in conv_up3.weight"),
        ({"body.7.rdb1.conv1.bias": torch.zeros(4)}, "differs in body.1.rdb1"),
        ({"body.x": torch.zeros(4)}, "differs in body.1.rdb1"),
        ({"conv_first.weight": torch.zeros(())}, "holds no network of the Real-ESRGAN class"),
        ({"conv_hr.bias": torch.full((8,), torch.nan)}, "holds weights that are no finite numbers"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, suffix: str, change: dict[str, Any], reason: str) -> None:
    weights = {name: value for name, value in (build_rrdb().state_dict() | change).items() if value is not None}
    file = tmp_path / f"foreign{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    with pytest.raises(ValueError, match=reason) as caught:
        load_upscaler(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no weights at all, but some text", None])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    file, whole = tmp_path / f"damaged{suffix}", tmp_path / "whole"
    weights = build_rrdb().state_dict()
    save_file(weights, whole) if suffix == ".safetensors" else torch.save(weights, whole)
    file.write_bytes(whole.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ValueError, match=r"damaged.* cannot be read as weights") as caught:
        load_upscaler(file)
    assert "\n" not in str(caught.value)


def test_what_names_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x4\.pth is missing"):
        load_upscaler(tmp_path / "x4.pth")
    with pytest.raises(ValueError, match=r"holds no \.safetensors or \.pth file, or a \.bin with its \.param"):
        load_upscaler(tmp_path)
    for name in ("x2.pth", "x4.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(ValueError, match=r"holds x2\.pth, x4\.pth: name one of them, as .*/x2\.pth"):
        load_upscaler(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors holds no network of the Real-ESRGAN class"):
        load_upscaler(tmp_path / "other")
