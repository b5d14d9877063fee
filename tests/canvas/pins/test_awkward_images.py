"""Pixels come before metadata: what makes no sense beside them is left, what is missing of them is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from canvas.pins.containers.orientation import read_orientation
from canvas.pins.containers.split import split_container
from canvas.pins.images import decode_image, normalize_image, read_image
from tests.canvas.image_files import (
    PNG_START,
    build_chunk,
    build_exif,
    build_linear_profile,
    build_photo,
    build_png,
    build_swapped_profile,
    encode,
    insert_chunk,
    insert_riff_chunk,
    insert_segment,
)

PHOTO = build_photo()
PNG, JPEG, WEBP = encode(PHOTO, "PNG"), encode(PHOTO, "JPEG", quality=90), encode(PHOTO, "WEBP", lossless=True)
PROGRESSIVE = encode(PHOTO, "JPEG", progressive=True)
WEBP_X = encode(PHOTO, "WEBP", lossless=True, exif=b"Exif\0\0II*\0")  # in the extended form
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BOMB = zlib.compress(bytes(40 * 1024**2))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        pytest.param(insert_chunk(PNG, b"eXIf", b"garbage, not EXIF"), PNG, id="garbage-exif"),
        pytest.param(insert_chunk(PNG, b"eXIf", build_exif(1, rational=True)), PNG, id="rational"),
        pytest.param(insert_chunk(PNG, b"eXIf", build_exif(9)), PNG, id="no-such-orientation"),
        pytest.param(insert_chunk(PNG, b"tEXt", b"Comment\0" + b"x" * 3_000_000), PNG, id="long-text"),
        pytest.param(insert_chunk(PNG, b"zTXt", b"Comment\0\0" + BOMB), PNG, id="text-bomb"),
        pytest.param(insert_chunk(PNG, b"zTXt", b"Comment\0\x07what"), PNG, id="unknown-compression"),
        pytest.param(insert_chunk(PNG, b"iTXt", b"Comment\0\x01\0\0\0" + BOMB), PNG, id="international-bomb"),
        pytest.param(insert_chunk(PNG, b"iTXt", b"\xff\xfe"), PNG, id="broken-text"),
        pytest.param(insert_chunk(PNG, b"iCCP", b"big\0\0" + BOMB), PNG, id="profile-bomb"),
        pytest.param(insert_chunk(PNG, b"iCCP", b"none\0\0not deflated"), PNG, id="garbage-profile"),
        pytest.param(insert_chunk(PNG, b"iCCP", b""), PNG, id="empty-profile"),
        pytest.param(insert_chunk(PNG, b"cHRM", b"123"), PNG, id="short-chromaticities"),
        pytest.param(insert_chunk(PNG, b"gAMA", b""), PNG, id="empty-gamma"),
        pytest.param(insert_chunk(PNG, b"pHYs", b"1"), PNG, id="short-size"),
        pytest.param(insert_chunk(PNG, b"sRGB", b""), PNG, id="empty-intent"),
        pytest.param(insert_chunk(PNG, b"acTL", b"1"), PNG, id="short-animation"),
        pytest.param(insert_chunk(PNG, b"fcTL", b"1"), PNG, id="short-frame"),
        pytest.param(insert_chunk(PNG, b"eXIf", b"II*\0" + b"\xff" * 20), PNG, id="exif-out-of-bounds"),
        pytest.param(PNG.replace(b"IEND", b"junk"), PNG, id="unknown-end"),
        pytest.param(PNG + b"trailing bytes" * 100, PNG, id="png-trailer"),
        pytest.param(PNG[:-12], PNG, id="png-without-end"),
        pytest.param(insert_segment(JPEG, 0xE1, b"Exif\0\0garbage"), JPEG, id="jpeg-garbage-exif"),
        pytest.param(insert_segment(JPEG, 0xE1, b"Exif\0\0" + build_exif(1, rational=True)), JPEG, id="jpeg-rational"),
        pytest.param(insert_segment(JPEG, 0xE2, b"ICC_PROFILE\0\1\3" + b"x" * 100), JPEG, id="jpeg-profile-parts"),
        pytest.param(insert_segment(JPEG, 0xE2, b"ICC_PROFILE\0"), JPEG, id="jpeg-short-profile"),
        pytest.param(insert_segment(JPEG, 0xE2, b"MPF\0II*\0" + b"\xff" * 30), JPEG, id="jpeg-broken-mpf"),
        pytest.param(insert_segment(JPEG, 0xED, b"Photoshop 3.0\0" + b"8BIM" * 9), JPEG, id="jpeg-photoshop"),
        pytest.param(insert_segment(JPEG, 0xEE, b"Ado"), JPEG, id="jpeg-short-adobe"),
        pytest.param(JPEG + b"\xff\xd8\xff trailing" * 50, JPEG, id="jpeg-trailer"),
        pytest.param(JPEG[:-2], JPEG, id="jpeg-without-end"),
        pytest.param(JPEG[:-1], JPEG, id="jpeg-with-half-an-end"),
        pytest.param(PROGRESSIVE[:-2], PROGRESSIVE, id="progressive-without-end"),
        pytest.param(insert_riff_chunk(WEBP_X, b"EXIF", b"garbage"), WEBP, id="webp-garbage-exif"),
        pytest.param(insert_riff_chunk(WEBP_X, b"ICCP", b"garbage"), WEBP, id="webp-garbage-profile"),
        pytest.param(insert_riff_chunk(WEBP_X, b"junk", b"x" * 99), WEBP, id="webp-unknown"),
        pytest.param(WEBP + b"trailing", WEBP, id="webp-trailer"),
        pytest.param(b"RIFF\0\0\0\0" + WEBP[8:], WEBP, id="webp-of-size-0"),
    ],
)
def test_side_chunks_refuse_no_image(data: bytes, plain: bytes) -> None:
    assert np.array_equal(pixels(data), pixels(plain))
    normalized = normalize_image(data)
    assert (normalized.width, normalized.height) == PHOTO.size
    with Image.open(io.BytesIO(normalized.data)) as image:  # now any decoder reads it
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels(plain))
        assert not image.getexif()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(build_png(np.asarray(PHOTO), 8, 2, rows=20), id="png-half-its-rows"),
        pytest.param(build_png(np.asarray(PHOTO), 8, 2, rows=39), id="png-without-last-row"),
        pytest.param(cut(PNG, 0.5), id="png-cut"),
        pytest.param(cut(PNG, 0.97), id="png-cut-near-its-end"),
        pytest.param(PNG[:-30] + bytes([PNG[-30] ^ 1]) + PNG[-29:], id="png-flipped-bit"),
        pytest.param(cut(JPEG, 0.6), id="jpeg-cut"),
        pytest.param(cut(JPEG, 0.6) + b"\xff\xd9", id="jpeg-cut-and-ended"),
        pytest.param(JPEG[:-12], id="jpeg-without-last-bytes"),
        pytest.param(cut(PROGRESSIVE, 0.6), id="progressive-cut"),
        pytest.param(cut(PROGRESSIVE, 0.95), id="progressive-cut-near-its-end"),
        pytest.param(PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")], id="progressive-without-last-scan"),
        pytest.param(cut(encode(PHOTO.convert("L"), "JPEG"), 0.7), id="grey-jpeg-cut"),
        pytest.param(cut(encode(PHOTO.convert("CMYK"), "JPEG"), 0.7) + b"\xff\xd9", id="cmyk-jpeg-cut-and-ended"),
        pytest.param(cut(WEBP, 0.7), id="webp-cut"),
        pytest.param(cut(encode(PHOTO, "WEBP"), 0.7), id="lossy-webp-cut"),
        pytest.param(PNG_START + build_chunk(b"IHDR", PNG[16:29]) + build_chunk(b"IEND", b""), id="png-without-pixels"),
        pytest.param(build_png(np.zeros((4, 4, 1), int), 8, 3), id="png-without-palette"),
        pytest.param(PNG.replace(b"IHDR", b"tEXt", 1), id="png-without-header"),
        pytest.param(JPEG[:20], id="jpeg-header-alone"),
        pytest.param(WEBP[:16], id="webp-header-alone"),
    ],
)
def test_missing_pixels_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^broken (PNG|JPEG|WEBP): .") as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)


def test_a_grey_corner_is_not_taken_for_missing_pixels() -> None:
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    image.paste((200, 30, 30), (8, 8, 40, 40))
    assert decode_image(encode(image, "JPEG")).getpixel((63, 63)) == (128, 128, 128)


def test_what_is_missing_but_no_pixel_is_said() -> None:
    assert read_image(JPEG).notes == ()
    assert read_image(JPEG[:-2]).notes == ("its end is missing, its pixels are complete",)
    assert normalize_image(JPEG[:-2]).data == JPEG
    assert normalize_image(PNG[:-12]).data == PNG


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_counts_in_every_format_whatever_stands_beside_it(orientation: int) -> None:
    exif = build_exif(orientation, rational=True)
    profile_text = f"\nexif\n{len(exif) + 6}\n".encode() + (b"Exif\0\0" + exif).hex().encode()
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    for data, plain in (
        (insert_chunk(PNG, b"eXIf", exif), PNG),
        (insert_chunk(PNG, b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile_text)), PNG),
        (insert_segment(JPEG, 0xE1, b"Exif\0\0" + exif), JPEG),
        (insert_riff_chunk(WEBP_X.replace(b"EXIF", b"junk"), b"EXIF", exif), WEBP),
    ):
        assert np.array_equal(pixels(data), turns[orientation](pixels(plain)))
    assert read_orientation(exif) == orientation


def test_only_the_first_exif_in_a_text_is_inflated() -> None:
    exif = build_exif(6)
    turn = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(exif)}\n{exif.hex()}\n".encode())
    first = insert_chunk(insert_chunk(PNG, b"zTXt", turn), b"zTXt", b"Raw profile type exif\0\0" + BOMB)
    assert np.array_equal(pixels(first), pixels(PNG))


def test_a_run_of_fill_bytes_is_read_once() -> None:
    fill = b"\xff" * 10**6
    with pytest.raises(ValueError, match="it ends before its pixels"):
        decode_image(b"\xff\xd8" + fill)
    for data in (JPEG, PROGRESSIVE):
        assert np.array_equal(pixels(data[:2] + fill + data[2:]), pixels(data))
        assert np.array_equal(pixels(data[:-2] + fill + data[-2:]), pixels(data))
        with pytest.raises(ValueError, match=r"ends before|broken data stream"):
            decode_image(cut(data, 0.6) + fill + b"\xff\xd9")


def test_profiles_count_by_their_curves_not_by_their_names() -> None:
    linear = pixels(encode(PHOTO, "PNG", icc_profile=build_linear_profile("sRGB linear")))
    light = (np.asarray(PHOTO) / 255).astype(np.float64)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(linear - expected).max() < 2
    decoded = read_image(encode(PHOTO, "JPEG", quality=95, icc_profile=build_swapped_profile()))
    assert decoded.conversions == ("the colour profile 'sRGB built-in'",)
    renamed = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = renamed.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    assert read_image(encode(PHOTO, "PNG", icc_profile=renamed)).conversions == ()
    assert np.array_equal(pixels(encode(PHOTO, "PNG", icc_profile=renamed)), np.asarray(PHOTO))


@pytest.mark.parametrize(
    ("gamma", "others", "expected"),
    [
        (100_000, (), 188),  # as renderers write linear light: half of it is 188 in sRGB
        (55_556, (), 146),
        (45_455, (), 128),
        (0, (), 128),  # makes no sense
        (2**32 - 1, (), 128),
        (100_000, ((b"sRGB", b"\0"),), 128),
        (100_000, ((b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB)),), 128),
    ],
)
def test_a_png_without_a_profile_counts_by_its_gamma(
    gamma: int, others: tuple[tuple[bytes, bytes], ...], expected: int
) -> None:
    chunk = (b"gAMA", gamma.to_bytes(4, "big"))
    for channels, colour in ((1, 0), (3, 2), (2, 4), (4, 6)):
        values = np.full((4, 6, channels), 128)
        image = read_image(build_png(values, 8, colour, chunk, *others)).image
        assert image.getpixel((0, 0)) == (expected,) * 3 + (128,) * (colour >= 4)
        mask = read_image(build_png(values, 8, colour, chunk, *others), is_mask=True).image
        assert mask.convert("RGB").getpixel((0, 0)) == (128,) * 3


def test_profiles_of_rgb_count_for_grey_and_for_transparency() -> None:
    linear = build_linear_profile()
    grey = PHOTO.convert("L")
    alpha = Image.linear_gradient("L").resize(PHOTO.size)
    see_through = PHOTO.copy()
    see_through.putalpha(alpha)
    whole = pixels(encode(grey.convert("RGB"), "PNG", icc_profile=linear))
    assert np.array_equal(pixels(encode(grey, "PNG", icc_profile=linear)), whole)
    both = pixels(encode(see_through, "PNG", icc_profile=linear))
    assert np.array_equal(both[..., 3], np.asarray(alpha))
    assert np.array_equal(both[..., :3], pixels(encode(PHOTO, "PNG", icc_profile=linear)))


def test_a_profile_that_cannot_be_used_is_said() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (lab, b"none", b""):
        data = insert_chunk(PNG, b"iCCP", b"name\0\0" + zlib.compress(profile))
        assert read_image(data).notes == ("its colour profile cannot be used, its colours are taken for sRGB",)
        assert np.array_equal(pixels(data), np.asarray(PHOTO))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_clear_grey_is_alpha_in_every_depth(depth: int) -> None:
    most = 2**depth - 1
    values = np.full((6, 8, 1), most)
    values[2:4, 2:6] = most // 2
    key = most // 2
    decoded = np.asarray(decode_image(build_png(values, depth, 0, (b"tRNS", key.to_bytes(2, "big")))))
    assert np.array_equal(decoded[..., 3] == 0, values[..., 0] == key)
    assert decoded[0, 0].tolist() == [255, 255, 255, 255]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_clear_colour_is_compared_in_the_depth_of_the_file(depth: int) -> None:
    scale = 257 if depth == 16 else 1
    values = np.asarray(PHOTO).astype(int) * scale
    key = values[5, 7].copy()
    values[6, 8] = key
    near = key.copy()
    near[2] += 1 if key[2] < 200 * scale else -1  # another colour, though of 16 bits it has the same high byte
    values[9, 9] = near
    body = b"".join(int(value).to_bytes(2, "big") for value in key)
    data = build_png(values, depth, 2, (b"tRNS", body))
    decoded = np.asarray(decode_image(data))
    assert np.array_equal(decoded[..., 3] == 0, (values == key).all(-1))
    assert np.array_equal(decoded[..., :3], (values // scale if depth == 8 else values >> 8))
    stored = normalize_image(data).data
    with Image.open(io.BytesIO(stored)) as image:
        assert np.array_equal(np.asarray(image), decoded)


@pytest.mark.parametrize(("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 17), (40, 33)])
def test_interlaced_images_are_read_and_counted(depth: int, channels: int, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 2**depth, (*size, channels))
    colour = 0 if channels == 1 else 2
    whole = build_png(values, depth, colour, interlaced=True)
    assert np.array_equal(pixels(whole), pixels(build_png(values, depth, colour)))
    if min(size) > 2:
        with pytest.raises(ValueError, match=r"^broken PNG: its rows have"):
            decode_image(build_png(values, depth, colour, interlaced=True, rows=1))


def test_a_palettes_transparency_stays() -> None:
    palette = PHOTO.quantize(8)
    data = encode(palette, "PNG", transparency=bytes([0, 128, 255, 255, 255, 255, 255, 255]))
    index = np.asarray(palette)
    assert np.array_equal(
        np.asarray(decode_image(data))[..., 3], np.where(index == 0, 0, np.where(index == 1, 128, 255))
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_used_and_said(kind: str) -> None:
    frames = [build_photo(seed=seed) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    decoded = read_image(data)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(frames[0]))
    assert decoded.notes == ("it is an animation of 3 frames, of which the first is used",)
    with Image.open(io.BytesIO(normalize_image(data).data)) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(frames[0]))


def test_the_first_image_of_a_camera_with_two_lenses_is_used() -> None:
    second = build_photo(seed=1)
    data = encode(PHOTO, "MPO", save_all=True, append_images=[second], quality=90)
    assert np.array_equal(pixels(data), pixels(encode(PHOTO, "JPEG", quality=90)))
    assert normalize_image(data).data.count(b"\xff\xd8\xff") == 1


def test_a_strip_too_long_for_jpeg_is_png() -> None:
    strip = np.zeros((3, 66_000, 1), int)
    data = build_png(strip + 0x8000, 16, 0)
    normalized = normalize_image(data)
    assert (normalized.width, normalized.height, normalized.data[:4]) == (66_000, 3, b"\x89PNG")
    assert decode_image(normalized.data).getpixel((65_999, 2)) == (128, 128, 128)


def test_a_mask_is_read_by_its_values() -> None:
    mask = np.zeros((6, 8, 1), int)
    mask[2:5, 2:6] = 1
    for factor in (1, 255, 257 * 255):
        decoded = read_image(build_png(mask * factor, 16, 0), is_mask=True)
        assert decoded.image.getextrema()[0] == (0, 255)
        assert bool(decoded.notes) == (factor == 1)
    soft = Image.linear_gradient("L")
    profiled = encode(soft, "PNG", icc_profile=build_linear_profile())
    assert np.array_equal(np.asarray(read_image(profiled, is_mask=True).image.convert("L")), np.asarray(soft))


def test_headers_with_impossible_sizes_are_refused_before_pixels_are_decoded() -> None:
    for data in (PNG[:16] + bytes(8) + PNG[24:], JPEG.replace(b"\x00\x28\x00\x38", b"\x00\x00\x00\x38")):
        with pytest.raises(ValueError, match=r"broken (PNG: wrong checksum|JPEG: 56 x 0 pixels)"):
            split_container(data)


PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
WIDE = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        (((b"cICP", bytes([9, 16, 0, 1])),), "it is of high dynamic range (cICP)"),
        (((b"cICP", bytes([12, 13, 0, 1])),), "its primaries (cICP) are not those of sRGB"),
        (((b"cICP", bytes([1, 13, 0, 1])), (b"cHRM", WIDE)), None),
        (((b"cHRM", WIDE),), "its primaries (cHRM) are not those of sRGB"),
        (((b"cHRM", PRIMARIES),), None),
        (((b"cHRM", WIDE), (b"sRGB", b"\0")), None),
        (((b"cHRM", WIDE), (b"iCCP", b"p\0\0" + zlib.compress(SRGB))), None),
        (((b"cHRM", WIDE[:9]),), None),
    ],
)
def test_colours_that_are_not_converted_are_said(chunks: tuple[tuple[bytes, bytes], ...], says: str | None) -> None:
    data = build_png(np.asarray(PHOTO), 8, 2, *chunks)
    notes = read_image(data).notes
    assert [note.partition(",")[0] for note in notes] == ([] if says is None else [says])
    assert read_image(data, is_mask=True).notes == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PNG[:8] + build_chunk(b"CgBI", bytes(4)) + PNG[8:], "^PNG in Apple's own form.* is not read, convert it"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), "^JPEG with lossless coding is not read, convert it"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc5", 1), "^JPEG with hierarchical coding is not read"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xf7", 1), "^JPEG with JPEG-LS coding is not read"),
        (JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "^JPEG with 12 bits a channel is not read"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", r"what macOS keeps beside a file, whose name begins with \._"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "it is a camera's raw file, convert it"),
        (b"FUJIFILMCCD-RAW 0201", "it is a camera's raw file"),
        (b"\0\0\0\x18ftypheif\0\0\0\0heif", "it is HEIC, convert it"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "it is AVIF, convert it"),
        (b"\0\0\0\x20ftypisom\0\0\0\0mp41", "it is a video"),
        (b"RIFF\0\0\0\0AVI LIST", "it is a video"),
        (b"P6\n4 4\n255\n" + bytes(48), "it is Netpbm, convert it"),
        (b"\x76\x2f\x31\x01" + bytes(9), "it is OpenEXR, convert it"),
        (bytes(5000), "it begins with zero bytes alone"),
        ("找不到图片".encode(), "it is text, which begins with '找不到图片'"),
        (b"\xff\xfe\xfd" * 99, "^not a JPEG, PNG or WEBP image$"),
    ],
)
def test_other_forms_and_files_are_named(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_image(data)
