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
    files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    by_name = sorted((file.relative_to(path).as_posix(), file) for file in files)
    listing = json.dumps([{"md5": digest(file), "relpath": name} for name, file in by_name])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def read_pin(path: str, root: Path) -> str | None:
    """Return the digest that `<path>.dvc` of the project at `root` pins; None if there is no such file."""
    pin = root / f"{path}.dvc"
    if not pin.is_file():
        return None
    return str(YAML(typ="safe", pure=True).load(pin.read_text(encoding="utf-8"))["outs"][0]["md5"])


def read_locked_digest(path: str, root: Path) -> str | None:
    """Return the digest of a stage's output in dvc.lock; None if it does not name `path`."""
    lock = root / "dvc.lock"
    if not lock.is_file():
        return None
    stages = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))["stages"].values()
    digests = {Path(out["path"]): str(out["md5"]) for stage in stages for out in stage.get("outs", ())}
    return digests.get(Path(path))
