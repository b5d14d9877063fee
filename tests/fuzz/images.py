"""Image files of every kind, broken in some way: read rightly, or refused in one sentence, in bounded memory.

What is right is known: side chunks change no pixel; of what is cut off or flipped under a checksum only the whole
image is accepted; what is accepted any decoder shows alike afterwards.
"""

from __future__ import annotations

import io
import resource
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from canvas.pins.images import DecodedImage, ImageLimits, normalize_image, read_image
from tests.canvas.image_files import (
    build_exif,
    build_png,
    encode,
    insert_chunk,
    insert_riff_chunk,
    insert_segment,
)

LIMITS = ImageLimits(max_bytes=8_000_000, max_pixels=500_000)
MAX_GROWTH_MB = 400
Draw = np.random.Generator
GARBAGE_NAMES = (
    b"eXIf",
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"iCCP",
    b"gAMA",
    b"cHRM",
    b"pHYs",
    b"acTL",
    b"tIME",
    b"sPLT",
    b"prVt",
)
BOMB = zlib.compress(bytes(30 * 1024**2))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and the image that it must show if it is accepted."""

    data: bytes
    image: Image.Image | None  # None: any
    must_pass: bool = False
    must_fail: bool = False


def try_case(seed: int) -> str | None:
    """Read the file of this seed, and bring it to the form that tables hold."""
    draw = np.random.default_rng(seed)
    case = BREAKERS[seed % len(BREAKERS)](draw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decoded = read_image(case.data, LIMITS)
    except ValueError as error:
        if "\n" in str(error) or len(str(error)) > 400 or not str(error).isprintable():
            return f"not one sentence: {error!r}"
        return f"refused: {error}" if case.must_pass else None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MAX_GROWTH_MB:
        return f"took {grown:.0f} MB"
    return _check_accepted(case, decoded)


def _check_accepted(case: Case, decoded: DecodedImage) -> str | None:
    if case.must_fail:
        return "accepted in silence"
    if decoded.image.mode not in ("RGB", "RGBA") or decoded.image.width * decoded.image.height > LIMITS.max_pixels:
        return f"is {decoded.image}"
    if case.image is not None and not _is_same(decoded.image, case.image):
        return "shows another image in silence"
    normalized = normalize_image(case.data, LIMITS)
    again = read_image(normalized.data).image
    if again.size != decoded.image.size or (normalized.width, normalized.height) != again.size:
        return f"becomes {again}"
    with Image.open(io.BytesIO(normalized.data)) as image:
        image.load()
        lossless = image.format == "PNG" or not decoded.rewritten
        if lossless and not _is_same(image.convert(decoded.image.mode), decoded.image):
            return "is shown otherwise by another decoder"
    return None


def _is_same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.mode == second.mode and first.tobytes() == second.tobytes()


# Whole files


def _draw_image(draw: Draw) -> Image.Image:
    height, width = (int(value) for value in draw.integers(1, 41, 2))
    coarse = draw.integers(0, 256, (*draw.integers(1, 7, 2), 4), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image if draw.random() < 0.3 else image.convert("RGB")


def _draw_png(draw: Draw) -> bytes:
    depth, colour = ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (8, 6), (16, 6))[
        draw.integers(10)
    ]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = draw.integers(0, 2**depth, (*draw.integers(1, 30, 2), channels))
    chunks = []
    if colour in (0, 2) and draw.random() < 0.5:
        chunks.append((b"tRNS", b"".join(int(value).to_bytes(2, "big") for value in values[0, 0])))
    return build_png(values, depth, colour, *chunks)


def _draw_file(draw: Draw, kinds: str = "plpjwg") -> bytes:
    image = _draw_image(draw)
    match kinds[draw.integers(len(kinds))]:
        case "g":
            return _draw_png(draw)
        case "p":
            return encode(image, "PNG")
        case "l":
            return encode(image.convert(("L", "P", "1", "LA")[draw.integers(4)]), "PNG")
        case "w":
            return encode(image, "WEBP", lossless=bool(draw.integers(2)))
        case _:
            mode = ("RGB", "RGB", "L", "CMYK")[draw.integers(4)]
            options = {"restart_marker_blocks": 4} if draw.random() < 0.2 else {"progressive": bool(draw.integers(2))}
            return encode(image.convert("RGB").convert(mode), "JPEG", quality=int(draw.integers(30, 96)), **options)


# Ways to break them


def _add_side_chunks(draw: Draw) -> Case:
    data = _draw_file(draw)
    image = read_image(data).image
    for _ in range(draw.integers(1, 4)):
        body = _draw_garbage(draw)
        if data.startswith(b"\x89PNG"):
            data = insert_chunk(data, GARBAGE_NAMES[draw.integers(len(GARBAGE_NAMES))], body)
        elif data.startswith(b"RIFF"):
            extended = encode(image, "WEBP", lossless=True, exact=True, xmp=b"x")
            data = insert_riff_chunk(extended, (b"EXIF", b"ICCP", b"XMP ", b"what")[draw.integers(4)], body)
        else:
            start = (b"", b"Exif\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"Photoshop 3.0\0", b"JFXX\0")[draw.integers(6)]
            data = insert_segment(data, int(draw.choice([0xE0, 0xE1, 0xE2, 0xED, 0xFE])), (start + body)[:65_000])
    return Case(data, image, must_pass=True)


def _draw_garbage(draw: Draw) -> bytes:
    match draw.integers(6):
        case 0:
            return draw.bytes(int(draw.integers(0, 60)))
        case 1:
            return b"name\0\0" + BOMB
        case 2:
            return b"Comment\0" + b"x" * int(draw.integers(0, 1_500_000))
        case 3:
            return build_exif(1, rational=True)
        case 4:
            return b"II*\0" + draw.bytes(40).replace(b"\x12\x01", b"\0\0")
        case _:
            return b"name\0\0" + zlib.compress(draw.bytes(200))


def _cut_off(draw: Draw) -> Case:
    data = _draw_file(draw)
    return Case(data[: draw.integers(0, len(data))], read_image(data).image)


def _cut_off_and_end(draw: Draw) -> Case:
    image = _draw_image(draw).convert("RGB")
    data = encode(image, "JPEG", quality=90)
    end = int(draw.integers(len(data) // 2, len(data)))
    return Case(data[:end] + b"\xff\xd9", read_image(data).image)


def _flip_bits(draw: Draw) -> Case:
    data = bytearray(whole := _draw_file(draw))
    for place in draw.integers(0, len(data), draw.integers(1, 6)):
        data[place] ^= 1 << int(draw.integers(8))
    return Case(bytes(data), read_image(whole).image if whole.startswith(b"\x89PNG") else None)


def _leave_rows_out(draw: Draw) -> Case:
    values = draw.integers(0, 256, (*draw.integers(2, 40, 2), 3))
    return Case(build_png(values, 8, 2, rows=int(draw.integers(0, len(values)))), None, must_fail=True)


def _splice(draw: Draw) -> Case:
    first, second = _draw_file(draw), _draw_file(draw)
    return Case(first[: draw.integers(len(first))] + second[draw.integers(len(second)) :], None)


def _invent(draw: Draw) -> Case:
    starts = (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\x40\0\0\0WEBP",
        b"GIF89a",
        b"\0\0\0\x18ftypheic",
        b"<html>",
    )
    start = starts[draw.integers(len(starts))]
    return Case(start + draw.bytes(int(draw.integers(0, 300))), None, must_fail=True)


def _claim_a_size(draw: Draw) -> Case:
    sides = tuple(int(2 ** draw.uniform(0, 31)) for _ in range(2))
    png = build_png(np.zeros((2, 2, 1), int), 8, 0)
    header = b"".join(side.to_bytes(4, "big") for side in sides) + png[24:29]
    body = png[:8] + b"\0\0\0\x0dIHDR" + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big") + png[33:]
    return Case(body, None, must_fail=sides != (2, 2) and sides[0] * sides[1] > 4)


def _fill_endlessly(draw: Draw) -> Case:
    return Case(b"\xff\xd8" + b"\xff" * 10**6, None, must_fail=True)


def _break_profile(draw: Draw) -> Case:
    profile = bytearray(PROFILE)
    for place in draw.integers(0, len(profile), draw.integers(1, 12)):
        profile[place] = draw.integers(256)
    kind = ("PNG", "JPEG", "WEBP")[draw.integers(3)]
    return Case(encode(_draw_image(draw).convert("RGB"), kind, icc_profile=bytes(profile)), None, must_pass=True)


def _turn(draw: Draw) -> Case:
    orientation = int(draw.integers(1, 9))
    image = _draw_image(draw).convert("RGB")
    turned = read_image(insert_chunk(encode(image, "PNG"), b"eXIf", build_exif(orientation))).image
    same_sides = turned.size == (image.size if orientation < 5 else image.size[::-1])
    data = insert_chunk(encode(image, "PNG"), b"eXIf", build_exif(orientation, rational=True) + draw.bytes(9))
    return Case(data, turned if same_sides else image, must_pass=True)


BREAKERS: tuple[Callable[[Draw], Case], ...] = (
    _add_side_chunks,
    _cut_off,
    _flip_bits,
    _cut_off_and_end,
    _add_side_chunks,
    _cut_off,
    _flip_bits,
    _leave_rows_out,
    _splice,
    _invent,
    _claim_a_size,
    _fill_endlessly,
    _break_profile,
    _turn,
)
