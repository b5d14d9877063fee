"""Masks as people hand them in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from canvas.pins.images import read_image
from tests.canvas.image_files import encode

ROWS, COLUMNS = np.mgrid[:90, :120]
PRODUCT = np.hypot(ROWS - 45, COLUMNS - 60) < 25
MASK = Image.fromarray(np.where(PRODUCT, 255, 0).astype(np.uint8))
NOISE = "it is black and white but for the noise of a lossy format, which was left out"
INVERTED = "its border is white, so the background counts as product"


def read(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    decoded = read_image(data, is_mask=True)
    return np.asarray(decoded.image.convert("L")), decoded.notes


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_noise_of_a_lossy_format_is_left_out(kind: str, quality: int) -> None:
    values, notes = read(encode(MASK.convert("RGB"), kind, quality=quality))
    assert np.array_equal(values == 255, PRODUCT)
    assert set(np.unique(values)) == {0, 255}
    assert notes == (NOISE,)
    with Image.open(io.BytesIO(encode(MASK, "JPEG", quality=quality))) as noisy:
        assert np.array_equal(read(encode(noisy, "PNG"))[0] == 255, PRODUCT)


def test_a_soft_mask_stays_soft() -> None:
    for radius in (0.6, 4.0):
        soft = MASK.filter(ImageFilter.GaussianBlur(radius))
        values, notes = read(encode(soft, "PNG"))
        assert np.array_equal(values, np.asarray(soft))
        assert notes == ()
    values, notes = read(encode(soft, "JPEG", quality=90))
    assert notes == ()
    assert len(np.unique(values)) > 100


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2), (0, 128), (0, 254), (16, 235)])
def test_of_two_values_the_larger_is_product(low: int, high: int) -> None:
    values, notes = read(encode(Image.fromarray(np.where(PRODUCT, high, low).astype(np.uint8)), "PNG"))
    assert np.array_equal(values, np.asarray(MASK))
    assert notes == (f"its values are {low} and {high}, of which {high} is taken for product",)


def test_a_mask_for_inpainting_is_said_to_be_inverted() -> None:
    for mask in (Image.eval(MASK, lambda value: 255 - value), Image.eval(MASK, lambda value: int(value == 0))):
        _, notes = read(encode(mask, "PNG"))
        assert notes[-1].startswith(INVERTED)
        assert "invert it if black is the product" in notes[-1]
    large = np.ones((90, 120), np.uint8) * 255
    large[:, :20] = 0  # a product that the image cuts off on three sides
    assert read(encode(Image.fromarray(large), "PNG"))[1] == ()
    for plain in (0, 255):
        assert read(encode(Image.new("L", (9, 9), plain), "PNG"))[1] == ()
