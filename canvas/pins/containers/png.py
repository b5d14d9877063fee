"""PNG (W3C, third edition) without its side chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from canvas.pins.containers.container import Container, UnreadFormError
from canvas.pins.containers.orientation import choose_orientation

START = b"\x89PNG\r\n\x1a\n"
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, steps between columns and rows."""
INFLATED_BLOCK = 1024**2
MAX_PROFILE_BYTES = 16 * 1024**2
"""Bytes of an inflated colour profile; a longer one is as good as absent."""
MAX_RAW_EXIF_BYTES = 1024**2
"""Bytes of an inflated text that holds EXIF; a longer one is as good as absent."""
RAW_EXIF = b"Raw profile type exif\0"
SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green, blue."""
PRIMARY_TOLERANCE = 0.01
SRGB_CODES, HDR_CURVES = (1, 2), (16, 18)
"""Codes of ITU-T H.273: primaries of sRGB, or unknown; transfer functions PQ and HLG."""


def split_png(data: bytes) -> Container:
    """Take a PNG apart, as `split_container` does; of an animation the image that stands in its first place."""
    kept: list[bytes] = [START]
    pixels: list[bytes] = []
    header: tuple[int, ...] = ()
    palette = key = profile = raw_exif = gamma = colours = coding = None
    is_srgb = False
    exif = xmp = b""
    frames, ended = 0, False
    for name, body, checksum in _walk_png(data):
        sound = checksum == _sum_chunk(name, body)
        if name == b"CgBI":
            raise UnreadFormError("in Apple's own form, as apps for its phones have it, is not read")
        if bool(header) == (name == b"IHDR"):
            raise ValueError("it does not begin with its header, or has two")
        if not sound and (name in (b"IHDR", b"PLTE", b"tRNS") or checksum == _sum_chunk(b"tRNS", body)):
            raise ValueError(f"wrong checksum of {name.decode()}")
        if name == b"IHDR":
            header = _read_png_header(body)
            kept.append(_build_chunk(name, body))
        elif name == b"IDAT":
            pixels.append(body)
        elif name == b"PLTE" and header[3] == 3 and palette is None:
            palette = body
            kept.append(_build_chunk(name, body))
        elif name == b"tRNS" and not pixels:
            key = _read_colour_key(body, *header[2:4])
            if header[3] == 3 and palette is not None:
                kept.append(_build_chunk(name, body[: len(palette) // 3]))
        elif name == b"IEND":
            ended = True
            break
        elif not sound:  # of no use, as if it were not there
            continue
        elif name == b"iCCP" and profile is None:
            profile = _inflate_side(body.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        elif name == b"gAMA" and gamma is None and len(body) == 4:
            gamma = int.from_bytes(body, "big") / 100_000
        elif name == b"sRGB":
            is_srgb = True
        elif name == b"cHRM" and len(body) == 32:
            colours = body
        elif name == b"cICP" and len(body) == 4:
            coding = body
        elif name == b"eXIf":
            exif = exif or body
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            if raw_exif is None and name != b"iTXt" and body.startswith(RAW_EXIF):
                raw_exif = _read_raw_exif(name, body[len(RAW_EXIF) :])
                exif = exif or raw_exif
            xmp = xmp or (body if b"tiff:Orientation" in body else b"")
        elif name == b"fcTL":
            frames += 1
    if not header:
        raise ValueError("its header is cut off")
    width, height, depth, colour, _ = header
    if not pixels:
        raise ValueError("it holds no pixels")
    if colour == 3 and not palette:
        raise ValueError("it lacks its palette")
    stored = b"".join(pixels)
    return Container(
        format="PNG",
        width=width,
        height=height,
        data=b"".join([*kept, _build_chunk(b"IDAT", stored), _build_chunk(b"IEND", b"")]),
        profile=profile,
        gamma=None if is_srgb or profile is not None else gamma,
        orientation=choose_orientation(exif, xmp),
        frames=max(1, frames),
        depth=depth,
        colour_key=key,
        colour_note=_describe_colours(coding, None if is_srgb or profile is not None else colours),
        ended=ended,
    )


def _describe_colours(coding: bytes | None, colours: bytes | None) -> str | None:
    """Say what cICP, and cHRM where it counts, tell of colours that is not converted (PNG 3, 4.3)."""
    if coding is not None and coding[1] in HDR_CURVES:
        return "it is of high dynamic range (cICP), its colours are taken for sRGB: convert it first"
    if coding is not None and coding[0] not in SRGB_CODES:
        return "its primaries (cICP) are not those of sRGB, for which its colours are taken"
    if coding is None and colours is not None:
        stored = [value / 100_000 for value in struct.unpack(">8I", colours)]
        if any(
            abs(value - expected) > PRIMARY_TOLERANCE for value, expected in zip(stored, SRGB_PRIMARIES, strict=True)
        ):
            return "its primaries (cHRM) are not those of sRGB, for which its colours are taken"
    return None


def check_png_rows(png: bytes) -> None:
    """Raise ValueError unless the coded data of a PNG of `split_container` inflates to every row; memory stays flat."""
    stored = b""
    header: tuple[int, ...] = ()
    for name, body, _ in _walk_png(png):
        if name == b"IHDR":
            header = _read_png_header(body)
        elif name == b"IDAT":
            stored = body
    width, height, depth, colour, interlaced = header
    bits = depth * CHANNELS[colour]
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    inflater, size, rest = zlib.decompressobj(), 0, stored
    try:
        while size <= expected + INFLATED_BLOCK and not inflater.eof:
            block = inflater.decompress(rest, INFLATED_BLOCK)
            rest = inflater.unconsumed_tail
            size += len(block)
            if not block and not rest:
                break
    except zlib.error as error:
        raise ValueError(f"its pixels cannot be inflated ({error})") from None
    if size < expected or (size > expected and not inflater.eof):  # cut off before its checksum, it is whole or broken
        raise ValueError(f"its rows have {size} bytes instead of {expected}")


def _walk_png(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, body and checksum of each chunk; a last one that is cut off comes as far as it goes.

    Raises ValueError where no chunk begins before the pixels; behind them that is the end.
    """
    place, pixels = len(START), False
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        pixels = pixels or name == b"IDAT"
        if not name.isalpha():
            if pixels:
                return
            raise ValueError(f"{name!r} is no name of a chunk")
        end = place + 8 + length
        yield name, data[place + 8 : end], data[end : end + 4]
        place = end + 4


def _sum_chunk(name: bytes, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(name)).to_bytes(4, "big")


def _read_png_header(body: bytes) -> tuple[int, ...]:
    """Read width, height, bits a channel, colour type, whether interlaced."""
    width, height, depth, colour, compression, filters, interlaced = struct.unpack(">IIBBBBB", body)
    if depth not in DEPTHS.get(colour, ()):
        raise ValueError(f"colour type {colour} with {depth} bits a channel")
    if compression or filters or interlaced > 1:
        raise ValueError(f"unknown coding {compression}, {filters}, {interlaced}")
    return width, height, depth, colour, interlaced


def _read_colour_key(body: bytes, depth: int, colour: int) -> tuple[int, ...] | None:
    count = {0: 1, 2: 3}.get(colour)
    if count is None or len(body) < 2 * count:
        return None
    return tuple(value & (2**depth - 1) for value in struct.unpack_from(f">{count}H", body))


def _read_raw_exif(name: bytes, text: bytes) -> bytes:
    """Read an EXIF block that a text chunk, without its key, holds as hexadecimal digits; empty if it holds none."""
    text = _inflate_side(text[1:], MAX_RAW_EXIF_BYTES) if name == b"zTXt" else text
    try:
        return bytes.fromhex("".join(text.decode("ascii").split("\n", 3)[3:]))
    except ValueError:
        return b""


def _inflate_side(body: bytes, limit: int) -> bytes:
    """Inflate a side chunk; empty if that cannot be done, or it is longer than `limit` bytes."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(body, limit)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else inflated


def _build_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + _sum_chunk(name, body)
