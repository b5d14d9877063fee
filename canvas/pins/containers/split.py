"""Encoded images taken apart: what makes the pixels, and beside it profile, orientation and number of frames.

A decoder refuses a sound image for the sake of a broken side chunk: EXIF that is none, a text that is too long. So it
gets the pixels' own chunks, and the side chunks are read here, where one that makes no sense is as good as absent.
"""

from __future__ import annotations

import struct

from canvas.pins.containers.container import CONVERT, FORMATS, Container, UnreadFormError
from canvas.pins.containers.jpeg import split_jpeg
from canvas.pins.containers.png import START, split_png
from canvas.pins.containers.webp import split_webp

QUOTED_CHARACTERS = 40
HEAD_BYTES = 4096
MAX_LEAD = 16
"""Bytes that may stand before an image and be named: a byte-order mark, blank lines of a server's script."""
MANGLED = "whose line ends were changed on the way, as FTP's text mode does: copy it again as binary"
STARTS = (
    (b"\x89PNG\n", f"PNG {MANGLED}"),
    (b"\x89PNG\r\r\n", f"PNG {MANGLED}"),
    (b"GIF8", f"GIF, {CONVERT}"),
    (b"BM", f"BMP, {CONVERT}"),
    (b"II*\0", f"TIFF or a camera's raw file, {CONVERT}"),
    (b"MM\0*", f"TIFF or a camera's raw file, {CONVERT}"),
    (b"II+\0", f"TIFF, {CONVERT}"),
    (b"MM\0+", f"TIFF, {CONVERT}"),
    (b"8BPS", f"a Photoshop file, {CONVERT}"),
    (b"%PDF", f"PDF, {CONVERT}"),
    (b"%!PS", f"PostScript, {CONVERT}"),
    (b"\xff\x0a", f"JPEG XL, {CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"JPEG XL, {CONVERT}"),
    (b"\0\0\0\x0cjP  ", f"JPEG 2000, {CONVERT}"),
    (b"\xff\x4f\xff\x51", f"JPEG 2000, {CONVERT}"),
    (b"\0\0\x01\0", f"an icon, {CONVERT}"),
    (b"\x8aMNG", f"MNG, {CONVERT}"),
    (b"\x8bJNG", f"JNG, {CONVERT}"),
    (b"II\xbc\x01", f"JPEG XR, {CONVERT}"),
    *(
        (start, f"a camera's raw file, {CONVERT}")
        for start in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
    ),
    (b"\x76\x2f\x31\x01", f"OpenEXR, {CONVERT}"),
    (b"#?RADIANCE", f"Radiance HDR, {CONVERT}"),
    *(
        (b"P%d" % number + space, f"Netpbm, {CONVERT}")
        for number in range(1, 8)
        for space in (b"\n", b"\r", b" ", b"\t")
    ),
    (b"qoif", f"QOI, {CONVERT}"),
    (b"DDS ", f"DDS, {CONVERT}"),
    (b"gimp xcf", f"GIMP's file, {CONVERT}"),
    (b"icns", f"an icon, {CONVERT}"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\0\5\x16\7", "what macOS keeps beside a file, whose name begins with ._: take the file of that name without it"),
    (b"PK\x03\x04", "a ZIP archive, unpack it first"),
    (b"\x1f\x8b", "packed with gzip, unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, run git lfs pull"),
)
BRANDS = {  # of ISO base media files
    **dict.fromkeys((b"avif", b"avis"), f"AVIF, {CONVERT}"),
    b"crx ": f"a camera's raw file, {CONVERT}",
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"mif2", b"msf1", b"miaf"),
        f"HEIC, {CONVERT}",
    ),
}
RIFFS = {b"AVI ": "a video", b"WAVE": "a sound"}


def split_container(data: bytes) -> Container:
    """Take an encoded image apart.

    Raises:
        ValueError: In one sentence, when it is no JPEG, PNG or WebP, or its structure is broken before its pixels.
    """
    for start, kind, split in (
        (START, "PNG", split_png),
        (b"\xff\xd8\xff", "JPEG", split_jpeg),
        (b"RIFF", "WEBP", split_webp),
    ):
        if data.startswith(start) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            try:
                container = split(data)
            except UnreadFormError as error:
                raise ValueError(f"{kind} {error}, {CONVERT}") from None
            except (ValueError, IndexError, struct.error) as error:
                reason = str(error) if isinstance(error, ValueError) else "its header is cut off"
                raise ValueError(f"broken {kind}: {reason}") from None
            if not (container.width and container.height):
                raise ValueError(f"broken {kind}: {container.width} x {container.height} pixels")
            return container
    raise ValueError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image{_describe_other(data)}")


def _describe_other(data: bytes) -> str:
    """Say what the bytes are instead, and what to do; empty if unknown."""
    if not data:
        return ": it is 0 bytes long"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[place : place + 4] for place in range(16, min(64, len(data)), 4))}
        return f": it is {next((kind for brand, kind in BRANDS.items() if brand in brands), 'a video')}"
    if data.startswith(b"RIFF") and data[8:12] in RIFFS:
        return f": it is {RIFFS[data[8:12]]}"
    if not any(data[:HEAD_BYTES]):
        return ": it begins with zero bytes alone, as what was never written to its end: copy it again"
    for start, description in STARTS:
        if data.startswith(start):
            return f": it is {description}"
    for start, kind in ((START, "PNG"), (b"\xff\xd8\xff", "JPEG")):
        if (place := data.find(start, 0, MAX_LEAD + len(start))) > 0:
            return f": {place} bytes that are none of it stand before a {kind}, cut them off"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return ": it is a web page, which the address gives instead of an image"
    if b"<svg" in head:
        return f": it is SVG, {CONVERT}"
    text = data[:QUOTED_CHARACTERS].decode("utf-8", "ignore")
    whole = len(text.encode()) > len(data[:QUOTED_CHARACTERS]) - 4  # the last letter may be cut
    if text and whole and all(letter.isprintable() or letter.isspace() for letter in text):
        return f": it is text, which begins with {text!r}"
    return ""
