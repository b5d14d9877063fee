"""How an image is turned, from metadata that may be garbage.

Sources: EXIF (CIPA DC-008, 4.6); XMP's tiff:Orientation.
"""

from __future__ import annotations

import re
import struct

XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def read_orientation(exif: bytes) -> int:
    """Read the orientation, 1 to 8, from an EXIF block, whatever else is wrong with it; 1 where it says none."""
    body = exif.removeprefix(b"Exif\0\0")
    if (order := {b"II": "<", b"MM": ">"}.get(body[:2])) is None or len(body) < 10:
        return 1
    (first,) = struct.unpack_from(order + "I", body, 4)
    if first + 2 > len(body):
        return 1
    (count,) = struct.unpack_from(order + "H", body, first)
    for place in range(first + 2, min(first + 2 + 12 * count, len(body) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", body, place)
        if tag == 0x0112 and kind in (3, 4):
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), body, place + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def choose_orientation(exif: bytes, xmp: bytes) -> int:
    """Return what EXIF says; where it says nothing, what XMP does."""
    orientation = read_orientation(exif)
    if orientation == 1 and (match := XMP_ORIENTATION.search(xmp)):
        return int(match[1])
    return orientation
