"""Content digests equal to DVC's, so that one word names an artifact in dvc.lock and in MLflow.

Our own few lines, because importing DVC costs seconds; a test compares them with the real one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ruamel.yaml import YAML


def digest(path: Path) -> str:
    """MD5 of a file; of a directory `<md5>.dir`, the MD5 of its listing as DVC writes it.

    The listing is the JSON of `{"md5", "relpath"}` of every file below, sorted by relpath; symbolic links are
    followed, empty directories don't count. `FileNotFoundError` if there is nothing at `path`.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    listing = json.dumps([{"md5": content, "relpath": name} for name, content in list_digests(path).items()])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def list_digests(folder: Path) -> dict[str, str]:
    """Return the MD5 of every file below the folder by its relative path, sorted."""
    files = [Path(parent) / name for parent, _, names in os.walk(folder, followlinks=True) for name in names]
    return {name: digest(file) for name, file in sorted((file.relative_to(folder).as_posix(), file) for file in files)}


def read_pin(path: str, root: Path) -> str | None:
    """Return the digest that `<path>.dvc` of the project at `root` pins; None if there is no such file."""
    pin = root / f"{path}.dvc"
    if not pin.is_file():
        return None
    return str(YAML(typ="safe", pure=True).load(pin.read_text(encoding="utf-8"))["outs"][0]["md5"])


def read_locked_digest(path: str, root: Path) -> str | None:
    """Return the digest of a stage's output in dvc.lock; None if it does not name `path`."""
    return read_locked_digests(root).get(path)


def read_locked_digests(root: Path) -> dict[str, str]:
    """Return the digests of all stages' outputs in dvc.lock, by path; none without that file."""
    lock = root / "dvc.lock"
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))["stages"].values()
    return {Path(out["path"]).as_posix(): str(out["md5"]) for stage in stages for out in stage.get("outs", ())}
