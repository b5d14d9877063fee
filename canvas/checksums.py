"""Checksums beside a model's weights and code, so that a flipped bit is found before it generates anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FILE = "checksums.json"
"""SHA-256 of each file of weights and of code that came with them, by its path in the folder. Configs may be edited, so
they have none."""
SUFFIXES = (".parquet", ".py", ".safetensors")


def write_checksums(folder: Path) -> None:
    """Write FILE for the weights that are in `folder` now."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    checksums = {path.relative_to(folder).as_posix(): _compute_checksum(path) for path in files}
    (folder / FILE).write_text(json.dumps(checksums, indent=1) + "\n", encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Raise ValueError, naming the file, if the weights in `folder` are not those that were written; a folder without
    FILE is taken as it is."""
    place = folder / FILE
    if not place.is_file():
        return
    try:
        checksums: dict[str, str] = dict(json.loads(place.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{place} is damaged: bring the model back from where it was stored") from None
    for name, checksum in checksums.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: bring the model back from where it was stored")
        if _compute_checksum(path) != checksum:
            raise ValueError(
                f"{path} is damaged, its bytes are not those that were saved: bring the model back from where it was "
                f"stored; if you changed it yourself, delete {place}"
            )


def _compute_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
