from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from canvas.pins.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    composite_on_white,
    decode_image,
    draw_contact_sheet,
    encode_jpeg,
    encode_png,
    normalize_image,
    read_image_size,
)

TALL = np.zeros((40, 20, 3), dtype=np.uint8)
TALL[:10] = (250, 0, 0)  # red on top


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


PNG = encoded(Image.fromarray(TALL), "PNG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats_decode_to_rgb(kind: str) -> None:
    image = decode_image(encoded(Image.fromarray(TALL), kind))
    assert image.mode == "RGB"
    assert image.size == (20, 40)
    assert image.info == {}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a JPEG.*: it is 0 bytes long"),
        (b"just a text\n" * 50, r"not a JPEG.*: it is text, which begins with 'just a text"),
        (b"<html>404</html>", "not a JPEG.*: it is a web page"),
        (b"\n<!DOCTYPE html><title>Sorry</title>", "it is a web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "it is SVG, convert it"),
        (encoded(Image.fromarray(TALL), "GIF"), "not a JPEG.*: it is GIF, convert it to JPEG or PNG first"),
        (encoded(Image.fromarray(TALL), "TIFF"), "it is TIFF or a camera's raw file"),
        (encoded(Image.fromarray(TALL), "BMP"), "it is BMP"),
        (encoded(Image.fromarray(TALL), "AVIF"), "not a JPEG.*: it is AVIF, convert it to JPEG or PNG first"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, convert it to JPEG or PNG first"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "it is AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "it is a video"),
        (PNG.replace(b"\r\n", b"\n", 1), "it is PNG whose line ends were changed on the way"),
        (PNG.replace(b"\n", b"\r\n"), "it is PNG whose line ends were changed on the way"),
        (b"\xef\xbb\xbf" + PNG, "3 bytes that are none of it stand before a PNG, cut them off"),
        (b"\n" + encoded(Image.fromarray(TALL), "JPEG"), "1 bytes that are none of it stand before a JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer, run git lfs pull"),
        (
            encode_jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))[:1500],
            "broken JPEG",
        ),
        (png_header(50_000, 50_000), "50000 x 50000 pixels exceed the limit of 64000000"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels exceed the limit of 64000000"),
        (png_header(20, 40), "broken PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "broken PNG"),
    ],
)
def test_bad_bytes_are_refused_in_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        decode_image(data, DEFAULT_LIMITS)
    assert "\n" not in str(caught.value)


def test_the_limit_is_the_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Pillow's own limit nor a fixed one comes before it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode_png(Image.fromarray(TALL))
    image = decode_image(data, ImageLimits(max_bytes=10**6, max_pixels=800))
    assert image.size == decode_image(data).size == (20, 40)
    assert image.crop((0, 0, 20, 39)).size == (20, 39)
    assert normalize_image(data, ImageLimits(max_bytes=10**6, max_pixels=800)).data == data
    assert read_image_size(data) == (20, 40)


def test_too_many_bytes_are_refused() -> None:
    data = encode_png(Image.fromarray(TALL))
    with pytest.raises(ValueError, match=rf"{len(data)} bytes exceed the limit of {len(data) - 1}"):
        decode_image(data, ImageLimits(max_bytes=len(data) - 1, max_pixels=10**6))
    assert decode_image(data, ImageLimits(max_bytes=len(data), max_pixels=800)).size == (20, 40)
    with pytest.raises(ValueError, match="limit of 799"):
        decode_image(data, ImageLimits(max_bytes=len(data), max_pixels=799))


def test_exif_orientation_is_applied_once() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees clockwise to see it upright
    data = encoded(Image.fromarray(np.rot90(TALL).copy()), "JPEG", exif=exif, quality=95)
    assert decode_image(data).size == (20, 40)
    assert decode_image(data).getpixel((10, 2))[0] > 200
    fixed = normalize_image(data)
    assert (fixed.width, fixed.height) == (20, 40)
    with Image.open(io.BytesIO(fixed.data)) as image:
        assert image.size == (20, 40)
        assert image.getexif().get(274, 1) == 1


def test_colour_profile_becomes_srgb() -> None:
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = encoded(Image.fromarray(TALL), "PNG")
    with_wrong_profile = encoded(Image.fromarray(TALL), "PNG", icc_profile=linear)
    with_garbage = encoded(Image.fromarray(TALL), "PNG", icc_profile=b"no profile")
    for data in (with_wrong_profile, with_garbage):  # unusable for RGB: ignored, as browsers do
        assert np.array_equal(np.asarray(decode_image(data)), np.asarray(decode_image(plain)))
        assert "icc_profile" not in Image.open(io.BytesIO(normalize_image(data).data)).info


def test_a_wide_gamut_profile_changes_the_pixels() -> None:
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = srgb.index(b"rXYZ"), srgb.index(b"gXYZ")
    srgb[red : red + 4], srgb[green : green + 4] = b"gXYZ", b"rXYZ"  # primaries swapped
    swapped = bytes(srgb).replace(b"s\x00R\x00G\x00B", b"x\x00R\x00G\x00B").replace(b"sRGB", b"xRGB")
    data = encoded(Image.fromarray(TALL), "PNG", icc_profile=swapped)
    red_pixel = decode_image(data).getpixel((10, 2))
    assert red_pixel[1] > red_pixel[0]
    fixed = normalize_image(data).data
    assert fixed != data
    assert np.abs(np.asarray(decode_image(fixed)).astype(int) - np.asarray(decode_image(data))).max() < 12  # JPEG


def test_sound_bytes_are_kept_as_delivered() -> None:
    data = encoded(Image.fromarray(TALL), "JPEG", quality=71)
    normalized = normalize_image(data)
    assert (normalized.data, normalized.width, normalized.height, normalized.notes) == (data, 20, 40, ())


@pytest.mark.parametrize("mode", ["L", "P", "LA", "CMYK", "1", "I;16", "RGBA"])
def test_every_mode_becomes_rgb_or_rgba(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 20), 0x8000, dtype=np.uint16))
    else:
        image = Image.fromarray(TALL).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    decoded = decode_image(data)
    assert decoded.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    if mode == "I;16":
        assert decoded.getpixel((3, 3)) == (128, 128, 128)
    if mode in ("CMYK", "I;16"):
        assert normalize_image(data).data != data


def test_encoders_are_deterministic_and_carry_no_metadata() -> None:
    image = Image.fromarray(TALL)
    image.info = {"comment": b"secret place", "icc_profile": b"xyz"}
    for encode in (encode_png, encode_jpeg):
        assert encode(image) == encode(Image.fromarray(TALL))
        assert b"secret" not in encode(image)
    assert np.array_equal(np.asarray(decode_image(encode_png(image))), TALL)


def test_header_reads_sizes_of_broken_files() -> None:
    data = encode_jpeg(Image.fromarray(TALL))
    assert read_image_size(data[:700]) == (20, 40)
    assert read_image_size(b"nothing") == (0, 0)
    assert read_image_size(png_header(9_000, 8_000)) == (9_000, 8_000)


def test_contact_sheet_places_pictures_in_reading_order() -> None:
    sheet = draw_contact_sheet(
        [Image.new("RGB", (50, 50), color) for color in ("red", "green", "blue")], ["a", "b" * 80, ""], 2, 40
    )
    assert sheet.width == 2 * 46 + 6
    assert sheet.getpixel((26, 26)) == (255, 0, 0)
    assert sheet.getpixel((26 + 46, 26)) == (0, 128, 0)
    assert sheet.getpixel((26, 26 + 62)) == (0, 0, 255)
    assert draw_contact_sheet([], [], 4, 40).size == (4 * 46 + 6, 68)


@pytest.mark.parametrize("size", [(66_000, 30), (30, 66_000), (5_000, 1), (1, 1), (81, 1), (79, 1)])
def test_a_strip_has_a_place_on_a_contact_sheet(size: tuple[int, int]) -> None:
    sheet = draw_contact_sheet([Image.new("RGB", size, "teal")], ["strip"], 1, 40)
    cell = np.asarray(sheet)[6:46, 6:46]
    assert (cell == (0, 128, 128)).all(-1).any()


def test_transparency_is_shown_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert [composite_on_white(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]
