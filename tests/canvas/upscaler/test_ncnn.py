"""Weights in the form of ncnn: two files beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.upscaler.loading import fetch_upscaler, load_upscaler
from canvas.upscaler.ncnn import DTYPES, read_ncnn
from canvas.upscaler.rrdb import RrdbUpscaler
from tests.canvas.upscaler.test_model import draw
from tests.canvas.upscaler.test_rrdb import build_rrdb


def write_ncnn(network: RrdbUpscaler, file: Path, dtype: str = "<f4") -> None:
    """Write NAME.bin and NAME.param as ncnn's converter does; modules come in the order of their run."""
    flag = next(flag for flag, stored in DTYPES.items() if stored == dtype)
    lines, stored = ["Input data 0 1 data"], b""
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d)]
    for number, (name, layer) in enumerate(layers):
        weight = layer.weight.detach().numpy().astype(dtype).tobytes()
        stored += np.uint32(flag).tobytes() + weight + b"\0" * (-len(weight) % 4)
        stored += layer.bias.detach().numpy().astype("<f4").tobytes()
        sizes = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}"
        lines += [f"Convolution {name} 1 1 b{number} b{number + 1} {sizes}", f"Split s{number} 1 2 a b c"]
    text = ["7767517", f"{len(lines)} {2 * len(lines)}", *lines]
    file.with_suffix(".param").write_text("\n".join(text) + "\n")
    file.with_suffix(".bin").write_bytes(stored)


@pytest.mark.parametrize(("dtype", "tolerance"), [("<f4", 0.0), ("<f2", 1e-2)])
def test_both_precisions_are_read(tmp_path: Path, dtype: str, tolerance: float) -> None:
    network = build_rrdb(features=5, blocks=2, growth=3)  # odd numbers of halves are padded
    write_ncnn(network, tmp_path / "x4", dtype)
    for source in (tmp_path / "x4.bin", tmp_path / "x4.param", tmp_path):
        made, described = fetch_upscaler(str(source))
        assert isinstance(made, RrdbUpscaler)
        assert (made.config["features"], made.config["blocks"], made.config["growth"]) == (5, 2, 3)
        assert described["repository"] == str(source)
        with torch.no_grad():
            torch.testing.assert_close(made(*draw(2)), network(*draw(2)), atol=tolerance, rtol=0)


def test_other_forms_are_preferred(tmp_path: Path) -> None:
    network = build_rrdb()
    write_ncnn(build_rrdb(blocks=2), tmp_path / "x4")
    torch.save(network.state_dict(), tmp_path / "x4.pth")
    assert load_upscaler(tmp_path).config["blocks"] == 1


def test_of_several_pairs_one_must_be_named(tmp_path: Path) -> None:
    for name in ("anime", "photo"):
        write_ncnn(build_rrdb(), tmp_path / name)
    with pytest.raises(ValueError, match=r"holds anime\.bin, photo\.bin: name one of them, as .*/anime\.bin"):
        load_upscaler(tmp_path)


def change_listing(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("7767517", "7767518", "x4.param begins with '7767518', where a listing of ncnn has 7767517"),
        ("Split s0 1 2 a b c\n", "", r"x4.param says that it has \d+ layers, but lists \d+"),
        ("Split s0", "InnerProduct s0", "x4.param lists InnerProduct s0, a layer that RealESRGAN_x4plus lacks"),
        ("1=3 4=1", "1=5 4=2", "x4.param lists Convolution conv_first .*, a convolution that RealESRGAN_x4plus lacks"),
        (" 6=216", "", "x4.param lists Convolution conv_first without its size"),
        (
            "Convolution conv_hr",
            "Split conv_hr",
            "x4.param lists 20 convolutions, where RealESRGAN_x4plus has",
        ),
        ("6=216", "6=432", r"x4.bin holds body.0.rdb1.conv1 in the form 0x"),
        ("0=8 1=3 4=1 5=1 6=216", "0=4 1=3 4=1 5=1 6=108", "x4.bin holds body.0.rdb1.conv1 in the form 0x"),
    ],
)
def test_another_listing_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    write_ncnn(build_rrdb(), tmp_path / "x4")
    change_listing(tmp_path / "x4.param", old, new)
    with pytest.raises(ValueError, match=reason) as caught:
        load_upscaler(tmp_path / "x4.bin")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"x4\.param begins with ''"),
        (b"7767517\n", r"x4\.param begins with '7767517', where .* and a line with its number of layers"),
        (b"\xff\xfe\x00\n\n1 1", r"x4\.param begins with "),
        (b"7767517\n0 0\n", r"x4\.param lists 0 convolutions"),
    ],
)
def test_what_is_no_listing_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    write_ncnn(build_rrdb(), tmp_path / "x4")
    (tmp_path / "x4.param").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        load_upscaler(tmp_path / "x4.bin")
    assert "\n" not in str(caught.value)


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    write_ncnn(build_rrdb(), tmp_path / "x4")
    stored = (tmp_path / "x4.bin").read_bytes()
    (tmp_path / "x4.bin").write_bytes(np.uint32(0x000D4B38).tobytes() + stored[4:])  # ncnn's int8
    with pytest.raises(ValueError, match=r"x4\.bin holds conv_first in the form 0x000d4b38: export the network as"):
        load_upscaler(tmp_path / "x4.bin")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    write_ncnn(build_rrdb(), tmp_path / "x4")
    stored = (tmp_path / "x4.bin").read_bytes()
    (tmp_path / "x4.bin").write_bytes(stored[:-4])
    with pytest.raises(ValueError, match=r"x4\.bin ends within conv_last"):
        read_ncnn(tmp_path / "x4.param")
    (tmp_path / "x4.bin").write_bytes(stored + b"more")
    with pytest.raises(ValueError, match=r"x4\.bin holds 4 bytes more than x4\.param lists"):
        read_ncnn(tmp_path / "x4.param")


@pytest.mark.parametrize(("kept", "missing"), [("x4.bin", "x4.param"), ("x4.param", "x4.bin")])
def test_half_a_pair_is_refused(tmp_path: Path, kept: str, missing: str) -> None:
    write_ncnn(build_rrdb(), tmp_path / "x4")
    (tmp_path / missing).unlink()
    for source in (tmp_path / kept, tmp_path):
        with pytest.raises(ValueError, match=rf"{missing} is missing: the form of ncnn is two files, x4\.bin and x4"):
            load_upscaler(source)
