"""What images of others say of themselves is read without harm."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from canvas.inference.provenance import KEY, describe_generation, encode_generated, read_provenance

JUDGE = {"judged": "image", "repository": "owner/name", "commit": "c" * 40, "labels": ["nsfw"], "threshold": 0.5}


def build_png(text: str) -> bytes:
    """An image whose provenance is `text`."""
    info, buffer = PngInfo(), io.BytesIO()
    info.add_itxt(KEY, text)
    Image.new("RGB", (2, 2)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "null", "\x1b]0;owned"])
def test_what_is_no_provenance_says_nothing(text: str) -> None:
    assert read_provenance(build_png(text)) is None


def test_an_image_names_its_judges() -> None:
    stated = describe_generation(None, seed=1, seed_by_product=False, prompt="mug", safety=[JUDGE])
    assert read_provenance(encode_generated(Image.new("RGB", (2, 2)), stated)) == json.loads(json.dumps(stated))
    assert stated["safety"] == [JUDGE]
    assert describe_generation(None, seed=1, seed_by_product=False, prompt="mug")["safety"] == []
