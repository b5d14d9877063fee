"""What a file that is no list is instead, by its first bytes, and what to do."""

from __future__ import annotations

import codecs
import re

HEAD_BYTES = 4096
"""Bytes of a file that tell it."""
UNPACK = "unpack it"
CONVERT = "save it as CSV in UTF-8"
SIGNATURES = {
    codecs.BOM_UTF32_LE: "UTF-32: save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`",
    codecs.BOM_UTF32_BE: "UTF-32: save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`",
    codecs.BOM_UTF16_LE: "UTF-16: save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`",
    codecs.BOM_UTF16_BE: "UTF-16: save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`",
    b"PAR1": "Parquet: set ingest.manifest.format to parquet",
    b"PARE": "Parquet whose footer is encrypted: write it without encryption",
    b"PK\x03\x04": "a ZIP or a spreadsheet: unpack it, or save its sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save its sheet as CSV in UTF-8",
    b"\x1f\x8b": f"gzip: {UNPACK}",
    b"BZh": f"bzip2: {UNPACK}",
    b"\x28\xb5\x2f\xfd": f"Zstandard: {UNPACK}",
    b"\xfd7zXZ\0": f"xz: {UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"7-Zip: {UNPACK}",
    b"\x04\x22\x4d\x18": f"LZ4: {UNPACK}",
    b"Rar!\x1a\x07": f"RAR: {UNPACK}",
    b"ARROW1": "Arrow IPC, which is Feather, too: write it as Parquet",
    b"FEA1": "Feather: write it as Parquet",
    b"ORC": "ORC: write it as Parquet",
    b"Obj\x01": "Avro: write it as Parquet",
    b"\x89HDF": "HDF5: write its table as Parquet",
    b"SQLite format 3\0": "an SQLite database: save what a query of it gives as CSV in UTF-8",
    b"%PDF": "PDF: save the table that it shows as CSV in UTF-8",
    b"\xff\xd8\xff": "an image: name the list of images, not one of them",
    b"\x89PNG": "an image: name the list of images, not one of them",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
}
"""First bytes -> what a file is that is no text, or one that no list is."""
TAR_PLACE, TAR_SIGNATURE = 257, b"ustar"
MARKUP = (
    (re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE), "a web page, perhaps one to sign in at: "
     "give the address at which the file itself is"),
    (re.compile(rb"\s*<\?xml\b", re.IGNORECASE), f"XML: {CONVERT}"),
)  # fmt: skip


def describe_content(head: bytes) -> str | None:
    """Return what a file is that begins with `head`, and what to do, as "gzip: unpack it"; None: a list, for all that
    its first bytes tell."""
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[TAR_PLACE:].startswith(TAR_SIGNATURE):
        return f"a tar archive: {UNPACK}"
    text = head.removeprefix(codecs.BOM_UTF8)
    for pattern, kind in MARKUP:
        if pattern.match(text):
            return kind
    return None


def is_text(head: bytes) -> bool:
    """Tell what may be the beginning of a file of UTF-8 text."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a letter
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
