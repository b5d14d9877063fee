"""Image files as cameras, editors and broken tools write them, and Pillow does not."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

PNG_START = b"\x89PNG\r\n\x1a\n"


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode as Pillow does."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def build_photo(height: int = 40, width: int = 56, seed: int = 0) -> Image.Image:
    """A smooth image without a flat corner."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(20, 235, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def build_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG: first column and row, steps between columns and rows."""


def build_png(
    values: np.ndarray,
    depth: int,
    colour: int,
    *chunks: tuple[bytes, bytes],
    rows: int | None = None,
    interlaced: bool = False,
) -> bytes:
    """A PNG of any depth; `chunks` before the pixels.

    Args:
        values: (h, w, channels), in `depth` bits.
        depth: 1, 2, 4, 8 or 16.
        colour: The type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        chunks: Name and body.
        rows: How many rows are coded; None: all.
        interlaced: By Adam7.
    """
    height, width = values.shape[:2]
    parts = [values]
    if interlaced:
        parts = [values[top::down, left::across] for left, top, across, down in PASSES]
    data = b"".join(b"\0" + line for part in parts if part.size for line in _pack_lines(part, depth)[:rows])
    return b"".join(
        [
            PNG_START,
            build_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))),
            *(build_chunk(name, body) for name, body in chunks),
            build_chunk(b"IDAT", zlib.compress(data)),
            build_chunk(b"IEND", b""),
        ]
    )


def _pack_lines(values: np.ndarray, depth: int) -> list[bytes]:
    flat = values.reshape(len(values), -1)
    if depth == 16:
        return [line.tobytes() for line in flat.astype(">u2")]
    if depth == 8:
        return [line.tobytes() for line in flat.astype(np.uint8)]
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return [line.tobytes() for line in np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)]


def insert_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """The PNG with a chunk behind its header."""
    place = len(PNG_START) + 25
    return png[:place] + build_chunk(name, body) + png[place:]


def insert_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """The JPEG with a segment at its start."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def insert_riff_chunk(webp: bytes, name: bytes, body: bytes) -> bytes:
    """The WebP with a chunk at its end, and the sizes right."""
    whole = webp[8:] + name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def build_exif(orientation: int, *, rational: bool = False) -> bytes:
    """An EXIF block; `rational`: with a resolution of 1 / 0 whose place is beyond the end."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    if rational:
        entries.append(struct.pack("<HHII", 0x011A, 5, 1, 0xFFFFFF00))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"


def build_linear_profile(name: str = "sRGB linear") -> bytes:
    """An ICC profile with sRGB's primaries and straight curves."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for place in range(132, 132 + 12 * count, 12):
        if profile[place : place + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = struct.unpack_from(">I", profile, place + 4)[0]
            profile[offset : offset + 12] = b"curv" + bytes(8)  # no entries: the identity
    return bytes(profile).replace("sRGB built-in".encode("utf-16-be"), name.ljust(13)[:13].encode("utf-16-be"))


def build_swapped_profile() -> bytes:
    """sRGB's profile with the primaries of red and green exchanged; its name still says sRGB."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
