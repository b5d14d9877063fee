"""Content digests equal to DVC's, so that one word names an artifact in dvc.lock and in MLflow.

Our own few lines, because importing DVC costs seconds; a test compares them with the real one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

CHUNK = 1 << 20


def digest(path: Path) -> str:
    """MD5 of a file; of a directory `<md5>.dir`, the MD5 of its listing as DVC writes it.

    The listing is the JSON of `{"md5", "relpath"}` of every file below, sorted by relpath; symbolic links are
    followed, empty directories don't count. `FileNotFoundError` if there is nothing at `path`.
    """
    if not path.is_dir():
        return _file_md5(path)
    listing = [{"md5": _file_md5(path / name), "relpath": name} for name in sorted(_files_below(path))]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            md5.update(block)
    return md5.hexdigest()


def _files_below(directory: Path) -> list[str]:
    """POSIX paths relative to `directory`."""
    return [
        (Path(folder) / name).relative_to(directory).as_posix()
        for folder, _, names in os.walk(directory, followlinks=True)
        for name in names
    ]
