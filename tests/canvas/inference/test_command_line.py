from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from canvas.__main__ import COMMANDS, main
from canvas.inference.files import read_image_file
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.provenance import SOURCE_TYPE, read_provenance
from tests.canvas.inference.conftest import cutout, split


@pytest.fixture(scope="module")
def folder(segmenting_pipeline, tmp_path_factory) -> Path:
    """A model with a segmenter; a product as cut-out, as RGB, and as other files; masks."""
    path = tmp_path_factory.mktemp("command")
    segmenting_pipeline.save_pretrained(path / "model")
    product = cutout(64, 64)
    rgb, mask = split(product)
    product.save(path / "mug.png")
    rgb.save(path / "rgb.png")
    mask.save(path / "mask.png")
    for name, value in (("empty", 0), ("full", 255)):
        Image.new("L", (64, 64), value).save(path / f"{name}.png")
    Image.new("1", (9000, 9000)).save(path / "large.png")
    Image.new("RGB", (16_384, 8)).save(path / "long.png")
    rgb.convert("CMYK").save(path / "cmyk.jpg", quality=95)
    rgb.save(path / "profile.png", icc_profile=_swapped_profile())
    (path / "deep.png").write_bytes(_deep_png(np.array(rgb)))
    (path / "nowhere").symlink_to("gone")
    faint = product.copy()
    faint.putalpha(product.getchannel("A").point(lambda value: min(value, 254)))
    faint.save(path / "faint.png")
    return path


def _swapped_profile() -> bytes:
    """sRGB's profile with the primaries of red and green exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "odd ".encode("utf-16-be"))


def _deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = (pixels.astype(">u2") * 257).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def generate(folder: Path, *options: str) -> int:
    product = () if "--product" in options else ("--product", "mug.png")
    return main(
        [
            *("generate", "--model", str(folder / "model"), *product, "--prompt", "a mug, forest"),
            *("--steps", "1", "--candidates", "1", "--out", "out", *options),
        ]
    )


def test_rgb_alone_says_that_the_segmenter_cut_it_out(folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, "--product", "rgb.png") == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(Path("out/rgb-0.png"))]
    assert "product cut out by its segmenter" in printed.err


def test_the_precision_changes_the_background_a_little_and_the_product_never(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    made = {}
    for precision in ("fp32", "bf16"):
        assert generate(folder, "--precision", precision, "--out", precision) == 0
        made[precision] = np.array(Image.open(f"{precision}/mug-0.png")).astype(int)
    assert 0 < np.abs(made["fp32"] - made["bf16"]).max() <= 16
    core = np.array(Image.open("mug.png"))[..., 3] == 255
    assert np.array_equal(made["bf16"][core], made["fp32"][core])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--product", "rgb.png", "--mask", "empty.png"), "the mask is empty: nothing to keep"),
        (("--product", "rgb.png", "--mask", "full.png"), "the mask covers the image: nothing to generate"),
        (("--mask", "mask.png"), "the product image has an alpha channel and a mask was given too"),
        (("--product", "faint.png"), "the alpha channel has no fully opaque pixel, the largest is 254 of 255"),
        (("--product", "large.png"), "large.png cannot be used: 9000 x 9000 pixels exceed the limit of 64000000"),
        (
            ("--product", "long.png", "--format", "webp", "--model", "none"),  # said before there is a model
            "16384 x 8 pixels are too many for webp, 16383 a side at most: use png",
        ),
        (("--prompt", "one two three four five six seven eight nine ten eleven twelve"), "cut off: 'eleven twelve'"),
        (("--scheduler", "ddpm"), "unknown scheduler 'ddpm': this denoiser samples with euler, heun, dpm++"),
        (("--device", "abacus"), "--device abacus is not on this machine: use cpu"),
        (("--device", "cuda:99"), "--device cuda:99 is not on this machine: use cpu"),
        (("--guidance", "nan"), "--guidance is nan: give a finite number"),
        (("--guidance", "inf"), "--guidance is inf: give a finite number"),
        (("--autoguidance", "nan"), "--autoguidance is nan: 0 is none"),
        (("--guidance-rescale", "nan"), "--guidance-rescale is nan: it must be from 0 to 1"),
        (("--candidates", "1001", "--model", "none"), "--candidates is 1001: give 1000 at most"),
        (("--max-pixels", "0", "--model", "none"), "--max-pixels is 0: give 1 or more"),
        (("--steps", "1001", "--model", "none"), "--steps is 1001: give 1000 at most"),
        (("--out", "mug.png/made", "--model", "none"), "Not a directory: 'mug.png/made'"),
        (("--guidance-stop", "nan"), "--guidance-stop is nan"),
        (("--out", "mug-in-forest.png"), "--out mug-in-forest.png looks like a file: name a folder"),
        (("--out", "mug.png"), "--out mug.png looks like a file"),
        (("--out", "nowhere"), "--out nowhere is a link that leads nowhere: name another folder"),
        (("--prompt", "caf\udce9"), "the prompt is not UTF-8 after 'caf'"),
        (("--negative-prompt", "\udce9"), "the negative prompt is not UTF-8 after ''"),
        (("--seed", str(2**64)), f"--seed {2**64} is beyond 64 bits"),
        (("--seed", str(-(2**63) - 1)), "is beyond 64 bits"),
        (("--seed", str(2**64 - 1), "--candidates", "2"), "or becomes so with 2 candidates: give one from"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(folder: Path, options, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, *options) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    sentences = [line for line in printed if line.startswith("canvas generate: ")]
    assert sentences == printed[-1:]
    assert message in sentences[0]


@pytest.fixture(scope="module")
def bare_model(folder: Path) -> Path:
    """The model without its weights: whoever loads it fails."""
    bare = folder / "bare"
    shutil.copytree(folder / "model", bare)
    for weights in bare.rglob("*.safetensors"):
        weights.unlink()
    return bare


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "bare/"),  # the weights are missed
        (("--candidates", "0"), "--candidates is 0: give 1 or more"),
        (("--steps", "-1"), "--steps is -1: give 1 or more"),
        (("--guidance", "0.5"), "--guidance is 0.5: 1 is no guidance"),
        (("--autoguidance", "-1"), "--autoguidance is -1.0: 0 is none, give a number from there"),
        (("--guidance-rescale", "1.5"), "--guidance-rescale is 1.5: it must be from 0 to 1"),
        (("--guidance-stop", "-1"), "--guidance-stop is -1.0: it must be from 0 to 1"),
        (("--scheduler", "ddpm"), "unknown scheduler 'ddpm': this denoiser samples with euler, heun, dpm++"),
        (("--prompt", "one two three four five six seven eight nine ten eleven twelve"), "cut off: 'eleven twelve'"),
        (("--negative-prompt", "ugly " * 99), "the negative prompt is too long"),
        (("--mask", "mask.png"), "the product image has an alpha channel and a mask was given too"),
        (("--product", "rgb.png", "--mask", "small.png"), "the mask is 32 x 32, the product image 64 x 64"),
        (("--product", "rgb.png", "--mask", "empty.png"), "the mask is empty: nothing to keep"),
        (("--product", "rgb.png", "--mask", "full.png"), "the mask covers the image: nothing to generate"),
        (("--product", "clear.png"), "the alpha channel is empty: nothing to keep"),
        (("--style", "rgb.png"), "this model has no image-prompt adapter, so it knows no style"),
        (("--style", "rgb.png", "--style-strength", "nan"), "the style strength is nan: it must be from 0"),
        (("--style", "rgb.png", "--style-typical", "2"), "--style-typical is 2.0: it must be from 0 to 1"),
        (("--style", "rgb.png", "--style-layers", "up=-1"), "the style's factor up=-1 must be from 0"),
        (("--style", "rgb.png", "--style-layers", "up"), "--style-layers 'up' is not understood"),
        (("--style", "rgb.png", "--style-weights", "0.5"), "the style weights [0.5] sum to 0.5"),
        (("--style", "rgb.png", "--style-weights", "0.5", "0.5"), "2 style weights were given for 1 images"),
        (("--top", "2"), "top is 2: it must be from 1 to the number of candidates, 1"),
        (
            ("--top", "1", "--drop-early", "--scheduler", "heun"),
            "candidates cannot be dropped early with FlowMatchHeun",
        ),
        (("--drop-early",), "--reward and --drop-early choose among candidates: say with --top"),
        (("--model", "none"), "none holds no model_index.json"),
        (("--product", f"{'x' * 250}.png"), "256 bytes where names have 255 at most: rename the product's file"),
    ],
)
def test_slips_of_options_are_said_before_the_model_loads(bare_model, folder, options, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    Image.new("L", (32, 32), 255).save("small.png")
    shutil.copy("mug.png", f"{'x' * 250}.png")
    Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save("clear.png")
    assert generate(folder, "--model", str(bare_model), "--out", "new/folder", *options) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert message in printed[-1]
    assert printed[-1].startswith("canvas generate: ")
    assert not Path("new").exists()


def test_a_product_without_mask_asks_a_model_without_segmenter_in_vain(bare_model, folder, tmp_path, capsys):
    index = bare_model / "model_index.json"
    model = tmp_path / "model"
    model.mkdir()
    for content, message in (
        (index.read_text().replace('"segmenter": [', '"left_out": ['), "and this model has no segmenter"),
        ("{", "model_index.json is no JSON: assemble the model again"),
        ("[" * 100_000, "model_index.json is no JSON: assemble the model again"),
        ("[]", "model_index.json is no JSON object"),
    ):
        (model / "model_index.json").write_text(content)
        assert (
            generate(folder, "--product", str(folder / "rgb.png"), "--model", str(model), "--out", str(tmp_path)) == 1
        )
        assert message in capsys.readouterr().err


def test_a_reader_of_the_output_that_leaves_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setitem(COMMANDS, "assemble", lambda options: ["a line"])
    with os.fdopen(write, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert main(["assemble", "--from", "parts.yaml", "--out", "model"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, "--device", "cuda") == 1
    assert capsys.readouterr().err == "canvas generate: --device cuda is not on this machine: use cpu\n"


def test_the_last_seed_of_64_bits_generates(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    assert generate(folder, "--seed", str(2**64 - 1)) == 0


@pytest.mark.parametrize(
    ("name", "conversion"),
    [("cmyk.jpg", "CMYK"), ("deep.png", "16 bits a channel"), ("profile.png", "the colour profile 'odd  built-in'")],
)
def test_a_converted_product_is_told(folder: Path, name: str, conversion: str, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, "--product", name, "--mask", "mask.png") == 0
    printed = capsys.readouterr().err
    assert f"product converted from {conversion} to 8-bit sRGB: its pixels come back as converted" in printed


def test_files_whose_pixels_are_taken_as_they_are(folder: Path, tmp_path: Path):
    rgb = Image.open(folder / "rgb.png").convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "srgb.png", icc_profile=srgb)
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    rgb.save(tmp_path / "unusable.png", icc_profile=b"no profile")
    rgb.convert("P").save(tmp_path / "palette.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    for path in (folder / "mug.png", *tmp_path.iterdir()):
        assert read_image_file(path).conversions == (), path.name


def test_no_file_of_another_name_prompt_or_format_is_replaced(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    out = tmp_path / "out"
    own = {"mug-0.png": b"a product of the shop", "mug-0_2.png": b"another"}
    out.mkdir()
    for name, data in own.items():
        (out / name).write_bytes(data)
    assert generate(folder, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "mug-0_3.png")]
    assert f"{out / 'mug-0.png'} was there and is kept, --overwrite would replace it" in printed.err
    assert {name: (out / name).read_bytes() for name in own} == own

    made = (out / "mug-0_3.png").read_bytes()
    assert generate(folder, "--out", str(out), "--prompt", "a mug, desert") == 0  # another prompt
    assert capsys.readouterr().out.split() == [str(out / "mug-0_4.png")]
    assert generate(folder, "--out", str(out)) == 0  # the same image again: its file is there
    assert capsys.readouterr().out.split() == [str(out / "mug-0_3.png")]
    assert (out / "mug-0_3.png").read_bytes() == made
    assert sorted(path.name for path in out.iterdir()) == [*sorted(own), "mug-0_3.png", "mug-0_4.png"]

    assert generate(folder, "--out", str(out), "--overwrite") == 0
    assert capsys.readouterr().out.split() == [str(out / "mug-0.png")]
    assert (out / "mug-0.png").read_bytes() == made
    assert (out / "mug-0_2.png").read_bytes() == own["mug-0_2.png"]


def test_the_product_itself_is_not_replaced(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("mug.png", "mug-0.png"):
        (tmp_path / name).write_bytes((folder / "mug.png").read_bytes())
    assert generate(folder, "--out", ".") == 0
    assert capsys.readouterr().out.split() == ["mug-0_2.png"]
    assert (tmp_path / "mug-0.png").read_bytes() == (folder / "mug.png").read_bytes()


def test_the_limit_of_pixels_is_an_option(folder: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert generate(folder, "--max-pixels", "4096") == 0
    assert generate(folder, "--max-pixels", "4095") == 1
    assert "mug.png cannot be used: 64 x 64 pixels exceed the limit of 4095" in capsys.readouterr().err


def test_a_mask_of_0_and_1_is_one_of_black_and_white(folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(folder)
    values = np.array(Image.open("mask.png").convert("L")) > 127
    for name, mask in (
        ("ones", values.astype(np.uint8)),
        ("deep-ones", values.astype(np.uint16)),
        ("deep", values.astype(np.uint16) * 255),
        ("full-depth", values.astype(np.uint16) * 65_535),
    ):
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        options = ("--product", "rgb.png", "--out", str(tmp_path / name), "--mask")
        assert generate(folder, *options, str(tmp_path / f"{name}.png")) == 0
        assert generate(folder, *options, "mask.png", "--overwrite") == 0
        assert len(list((tmp_path / name).iterdir())) == 1  # they were the same bytes


def test_a_name_that_is_too_long_by_its_number_is_said_before_the_model_loads(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "mug.png", name := f"{'x' * 249}.png")
    monkeypatch.setattr(CanvasPipeline, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{'x' * 249}-0.png").write_bytes(b"somebody's")
    assert generate(folder, "--product", name) == 1
    assert "257 bytes where names have 255 at most: rename the product's file" in capsys.readouterr().err
    monkeypatch.undo()


def test_what_was_given_is_not_replaced_even_if_asked_to(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for source, name in (("rgb.png", "rgb.png"), ("mask.png", "rgb-0.png")):
        shutil.copy(folder / source, name)
    before = (tmp_path / "rgb-0.png").read_bytes()
    options = ("--product", "rgb.png", "--mask", "rgb-0.png", "--out", ".", "--overwrite")
    assert generate(folder, *options) == 1
    assert "--overwrite would replace rgb-0.png, which was given: name another folder" in capsys.readouterr().err
    assert (tmp_path / "rgb-0.png").read_bytes() == before


def test_a_folder_may_be_called_like_an_image_and_a_format_be_in_capitals(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (tmp_path / "summer.png").mkdir()
    assert generate(folder, "--out", str(tmp_path / "summer.png"), "--format", "PNG") == 0
    assert [path.name for path in (tmp_path / "summer.png").iterdir()] == ["mug-0.png"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "mug.heic cannot be used: .*it is HEIC, convert it to JPEG or PNG"),
        (b"<html><body>404", "it is a web page"),
        (b"", "it is 0 bytes long"),
    ],
)
def test_a_product_that_is_no_image_is_named(folder: Path, tmp_path: Path, data: bytes, says: str, capsys):
    (tmp_path / "mug.heic").write_bytes(data)
    assert generate(folder, "--product", str(tmp_path / "mug.heic")) == 1
    assert re.search(says, capsys.readouterr().err)


def test_an_animated_product_is_its_first_frame_and_said(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    cut = Image.open("mug.png")
    cut.save(tmp_path / "mug.png", save_all=True, append_images=[cut.rotate(90)])
    assert generate(folder, "--product", str(tmp_path / "mug.png"), "--out", str(tmp_path)) == 0
    assert "it is an animation of 2 frames, of which the first is used" in capsys.readouterr().err


def test_flipped_weights_generate_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    shutil.copytree(folder / "model", tmp_path / "model")
    weights = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 64
    weights.write_bytes(data)
    assert generate(folder, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")) == 1
    assert f"{weights} is damaged" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(("part", "source"), [("unet", "the denoiser"), ("vae", "the autoencoder")])
def test_weights_that_are_no_numbers_give_no_black_image(folder, tmp_path, monkeypatch, capsys, part, source):
    monkeypatch.chdir(folder)
    pipeline = CanvasPipeline.from_pretrained(folder / "model")
    pipeline.register_modules(decoder=None)
    last = list(getattr(pipeline, part).parameters())[-1]
    with torch.no_grad():
        last.fill_(float("nan"))
    pipeline.save_pretrained(tmp_path / "model")
    assert generate(folder, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")) == 1
    assert f"{source} gave NaN or infinity" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_images_say_what_they_are_unless_they_are_not_to(folder, monkeypatch, suffix):
    monkeypatch.chdir(folder)
    out = folder / f"stated {suffix}"
    prompt = "tasse auf dem \u00df-Tisch"
    assert generate(folder, "--out", str(out), "--format", suffix, "--prompt", prompt, "--seed", "3") == 0
    assert generate(folder, "--out", str(out / "bare"), "--format", suffix, "--seed", "3", "--no-provenance") == 0
    (image,), (bare,) = out.glob(f"*.{suffix}"), (out / "bare").glob(f"*.{suffix}")
    stated = read_provenance(image.read_bytes())
    checksums = (folder / "model" / "checksums.json").read_bytes()
    assert stated is not None
    assert (stated["model"], stated["seed"], stated["prompt"]) == (hashlib.sha256(checksums).hexdigest(), 3, prompt)
    assert stated["seed_by_product"] is False
    assert stated["c2pa.actions"][0]["digitalSourceType"] == SOURCE_TYPE
    assert SOURCE_TYPE.encode() in image.read_bytes()
    assert read_provenance(bare.read_bytes()) is None
    assert read_image_file(image).conversions == ()
