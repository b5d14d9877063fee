"""WebP (RFC 9649) without its side chunks."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from canvas.pins.containers.container import Container
from canvas.pins.containers.orientation import choose_orientation


def split_webp(data: bytes) -> Container:
    """Take a WebP apart, as `split_container` does; of an animation the first frame, on the whole canvas."""
    canvas: bytes | None = None
    kept: list[tuple[bytes, bytes]] = []
    profile: bytes | None = None
    exif = xmp = b""
    size = (0, 0)
    frames, ended = 0, True
    for name, body, whole in _walk_riff(data[12:]):
        ended = ended and whole
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            frames += name == b"ANMF"
            if any(first == name for first, _ in kept):  # another frame, or what lies behind the end
                continue
            if not whole:
                raise ValueError("its pixels are cut off")
            kept.append((name, body))
            if name in (b"VP8 ", b"VP8L") and canvas is None:
                size = _read_webp_size(name, body)
        elif name == b"VP8X" and canvas is None:
            canvas = body
            size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        elif name == b"ICCP":
            profile = body
        elif name == b"EXIF":
            exif = exif or body
        elif name == b"XMP ":
            xmp = xmp or body
    if not {name for name, _ in kept} & {b"VP8 ", b"VP8L", b"ANMF"}:
        raise ValueError("it holds no pixels")
    if canvas is not None:
        kept.insert(0, (b"VP8X", bytes([canvas[0] & 0b00010010]) + canvas[1:]))  # has alpha, is animated
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in kept
    )
    return Container(
        format="WEBP",
        width=size[0],
        height=size[1],
        data=b"RIFF" + struct.pack("<I", len(body)) + body,
        profile=profile,
        orientation=choose_orientation(exif, xmp),
        frames=max(1, frames),
        ended=ended,
    )


def _walk_riff(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name and body of each chunk, and whether it is whole."""
    place = 0
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        body = data[place + 8 : place + 8 + length]
        yield name, body, len(body) == length
        place += 8 + length + length % 2


def _read_webp_size(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF
