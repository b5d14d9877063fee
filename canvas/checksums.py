"""Checksums beside a model's weights and code, and beside training shards, so that a flipped bit is found before it
generates or teaches anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

FILE = "checksums.json"
"""SHA-256 of each file of weights and of code that came with them, by its path in the folder. Configs may be edited, so
they have none."""
SUFFIXES = (".parquet", ".py", ".safetensors")


def write_checksums(folder: Path) -> None:
    """Write FILE for the weights that are in `folder` now."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    write_listing(folder, {path.relative_to(folder).as_posix(): compute_checksum(path) for path in files})


def write_listing(folder: Path, checksums: Mapping[str, str]) -> None:
    """Write FILE with these checksums of files by their path in `folder`."""
    (folder / FILE).write_text(json.dumps(checksums, indent=1) + "\n", encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Raise ValueError, naming the file, if the weights in `folder` are not those that were written; a folder without
    FILE is taken as it is."""
    for name, checksum in read_checksums(folder).items():
        verify_file(folder / name, checksum)


def read_checksums(folder: Path) -> dict[str, str]:
    """Return what FILE holds, nothing for a folder without it. Raises ValueError if FILE itself is damaged."""
    place = folder / FILE
    if not place.is_file():
        return {}
    try:
        return dict(json.loads(place.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{place} is damaged: bring {folder} back from where it was stored") from None


def verify_file(path: Path, checksum: str) -> None:
    """Raise ValueError, naming the file, if it is missing or is not what the checksum was made of."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: bring it back from where it was stored")
    if compute_checksum(path) != checksum:
        raise ValueError(
            f"{path} is damaged, its bytes are not those that were saved: bring it back from where it was stored; if "
            f"you changed it yourself, delete the {FILE} that names it"
        )


def compute_checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
