from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from canvas.light.certificate import Certificate, digest_image, parse_certificate, read_certificate
from canvas.light.gain import GRID
from canvas.light.relight import certify, relight_pixels
from tests.canvas.light.subject import build_product, build_slope


def make_certificate(source: str = "mask") -> Certificate:
    """The certificate of a product under a slope of light."""
    original = build_product()
    alpha = np.asarray(original.getchannel("A"), np.float32) / 255
    pixels = np.array(original.convert("RGB"))
    lit, grid = relight_pixels(pixels, alpha, build_slope(-0.3, 0.1))
    return certify(Image.fromarray(lit), original, alpha == 1, source, grid)


def test_a_certificate_comes_back_as_it_was_written():
    made = make_certificate()
    read = parse_certificate(made.to_json("mug-0.png"), "mug.json", (48, 60))
    assert json.loads(made.to_json("mug-0.png"))["name"] == "mug-0.png"
    assert read.core is not None
    assert np.array_equal(read.core, made.core)
    assert np.array_equal(read.grid, made.grid)
    assert (read.image_digest, read.original_digest, read.core_source) == (
        made.image_digest,
        made.original_digest,
        "mask",
    )
    assert read.limits == made.limits


def test_an_alpha_channel_is_read_from_the_original_again():
    stated = json.loads(make_certificate("alpha channel").to_json())
    assert stated["core"] == {"source": "alpha channel", "mask": None}
    assert [law["law"] for law in stated["laws"]] == ["gain", "gradient", "hue", "clipped", "residual"]


def test_a_digest_is_of_pixels_and_size():
    image = Image.new("RGB", (4, 6), (1, 2, 3))
    assert digest_image(image) == digest_image(image.copy())
    assert digest_image(image) != digest_image(image.resize((6, 4)))
    assert digest_image(image) != digest_image(image.convert("RGBA"))
    assert digest_image(Image.new("L", (4, 6), 7)) == digest_image(Image.new("RGB", (4, 6), (7, 7, 7)))


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda stated: stated.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("format"), "it does not say that its format is canvas.certificate/1"),
        (drop("image"), "image is missing or no str"),
        (drop("log_gain"), "log_gain is missing or no list"),
        (drop("placement"), "placement is missing or no dict"),
        (lambda stated: stated.update(log_gain=[[0.0]]), "log_gain must be 8 rows of 8 nodes of 3 finite numbers"),
        (lambda stated: stated.update(log_gain=[[[1e999] * 3] * GRID] * GRID), "Infinity is no number"),
        (lambda stated: stated.update(log_gain=["a"]), "could not convert string to float"),
        (lambda stated: stated["placement"].update(left=1.5), "left is missing or no int"),
        (lambda stated: stated["placement"].update(top=True), "top is missing or no int"),
        (lambda stated: stated["limits"].update(hue="much"), "could not convert string to float"),
        (lambda stated: stated["core"].update(mask="!"), "the mask of its core is no base64"),
        (lambda stated: stated["core"].update(mask="AAAA"), "not a JPEG, PNG or WEBP image"),
    ],
)
def test_what_is_no_certificate_is_refused_in_a_sentence(change: Callable[[dict[str, Any]], object], message: str):
    stated = json.loads(make_certificate().to_json())
    change(stated)
    with pytest.raises(ValueError, match=r"^mug\.json is no certificate: .*" + message.replace("/", r"\/")):
        parse_certificate(json.dumps(stated), "mug.json", (48, 60))


def test_a_core_of_another_size_is_refused():
    with pytest.raises(ValueError, match="its core is 48 x 60 pixels, the original 60 x 60"):
        parse_certificate(make_certificate().to_json(), "mug.json", (60, 60))
    with pytest.raises(ValueError, match="pixels exceed the limit of 100"):
        parse_certificate(make_certificate().to_json(), "mug.json", (10, 10))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "it is no JSON"), (b'{"format": "canv', "it is no JSON"), (b"[" * 100_000, "recursion"), (b"\xff", "JSON")],
)
def test_broken_files_are_refused_in_a_sentence(data: bytes, message: str, tmp_path: Path):
    (tmp_path / "c.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"c\.json is no certificate: .*{message}"):
        parse_certificate(read_certificate(tmp_path / "c.json"), "c.json", (48, 60))
    with pytest.raises(ValueError, match=r"cannot read .*none\.json: No such file"):
        read_certificate(tmp_path / "none.json")
