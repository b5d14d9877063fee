"""JPEG (ITU T.81, annex B) without its side segments."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from canvas.pins.containers.container import Container, UnreadFormError
from canvas.pins.containers.orientation import choose_orientation

MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)  # in coded data: no stuffing, no restart
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
UNREAD = {
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    0xF7: "JPEG-LS",
}
"""Frames that no common decoder reads."""
SIDES = frozenset({*range(0xE0, 0xF0), 0xFE})  # applications' segments and comments
PROFILE_START = b"ICC_PROFILE\0"
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"


def split_jpeg(data: bytes) -> Container:
    """Take a JPEG apart, as `split_container` does; of several in one file the first."""
    kept: list[bytes] = [b"\xff\xd8"]
    profiles: dict[int, bytes] = {}
    exif = xmp = b""
    size = (0, 0)
    depth, place, marker = 8, 2, 0
    while marker != 0xDA:
        marker, body, place = _read_segment(data, place)
        if _names_colours(marker, body):
            kept.append(_build_segment(marker, body))
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(XMP_START):
            xmp = xmp or body
        elif marker == 0xE2 and body.startswith(PROFILE_START) and len(body) > 14:
            profiles.setdefault(body[12], body[14:])
        elif marker not in SIDES:
            kept.append(_build_segment(marker, body))
        if marker in UNREAD:
            raise UnreadFormError(f"with {UNREAD[marker]} coding is not read")
        if marker in FRAMES:
            depth, height, width = struct.unpack_from(">BHH", body)
            size = (width, height)
    if depth != 8:
        raise UnreadFormError(f"with {depth} bits a channel is not read")
    end, ended = _find_end(data, place)
    stored = b"".join([*kept, data[place:end], b"" if ended else b"\xff\xd9"])
    if not ended and not _has_every_scan(stored):
        raise ValueError("it ends before its last scan")
    return Container(
        format="JPEG",
        width=size[0],
        height=size[1],
        data=stored,
        profile=b"".join(profiles[number] for number in sorted(profiles)) or None,
        orientation=choose_orientation(exif, xmp),
        ended=ended,
    )


def _read_segment(data: bytes, place: int) -> tuple[int, bytes, int]:
    """Return marker and body of the next segment before the coded data, and the place behind it."""
    while match := MARKER.search(data, place):
        marker, place = match[1][0], match.end()
        if marker == 0xD9:
            break
        if marker == 0xD8:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        if length < 2 or place + length > len(data):
            break
        return marker, data[place + 2 : place + length], place + length
    raise ValueError("it ends before its pixels")


def _names_colours(marker: int, body: bytes) -> bool:
    """Return whether a decoder learns from this segment which colour space the pixels have."""
    return (marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14) or (
        marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12
    )


def _build_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _find_end(data: bytes, place: int) -> tuple[int, bool]:
    """Find where the image ends whose first scan's coded data begins at `place`, and whether a marker says so."""
    while match := MARKER.search(data, place):
        if match[1] == b"\xd9":
            return match.end(), True
        if match[1] == b"\xd8":  # another image begins
            return match.start(), False
        place = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return len(data), False


def _has_every_scan(jpeg: bytes) -> bool:
    """Return whether scans give every coefficient of every component to its last bit."""
    missing: set[tuple[int, int]] = set()
    place = 2
    while match := MARKER.search(jpeg, place):
        marker, place = match[1][0], match.end()
        if marker == 0xD9:
            break
        body = jpeg[place + 2 : place + int.from_bytes(jpeg[place : place + 2], "big")]
        place += 2 + len(body)
        if marker in FRAMES:
            missing = {(component, coefficient) for component in body[6::3] for coefficient in range(64)}
        elif marker == 0xDA and body:
            count = body[0]
            first, last, bits = struct.unpack_from("BBB", body, 1 + 2 * count)
            if bits & 15 == 0:
                missing -= {(name, number) for name in body[1 : 1 + 2 * count : 2] for number in range(first, last + 1)}
    return not missing


def _find_scans(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the coded data of each scan begins and ends."""
    place = 2
    while match := MARKER.search(jpeg, place):
        place = match.end()
        if match[1] in (b"\xd8", b"\xd9"):
            continue
        place += int.from_bytes(jpeg[place : place + 2], "big")
        if match[1] == b"\xda":
            following = MARKER.search(jpeg, place)
            end = len(jpeg) if following is None else following.start()
            end = min(place, end) + len(jpeg[place:end].rstrip(b"\xff"))  # fill bytes are no data
            yield min(place, end), end
            place = end


def fill_scans(jpeg: bytes, filler: bytes) -> bytes:
    """Return a JPEG with `filler` at the end of each scan's coded data, and an end marker.

    A decoder reads it as pixels only where the scan's own data does not suffice.
    """
    parts, start = [], 0
    for first, last in _find_scans(jpeg):
        parts += [jpeg[start:first], jpeg[first:last], filler]
        start = last
    rest = jpeg[start:]
    return b"".join([*parts, rest if rest.endswith(b"\xff\xd9") else rest + b"\xff\xd9"])
