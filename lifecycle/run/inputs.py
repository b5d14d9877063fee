"""What a stage reads is what it is taken for: there, and with the bytes that were written.

A bit that flipped on a disk changes neither size nor time of a file, so DVC does not see it. But each stage computes
the digests of its inputs anyway, and which they should be stands in dvc.lock (as DVC ran the stage), in `.work/
written.json` (as it was run by hand) or in the pin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lifecycle.declare.graph import load_stages, map_producers
from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import Artifact, Paths, Stage
from lifecycle.workspace.digest import list_digests, read_locked_digests, read_pin
from lifecycle.workspace.staging import WORK, hold_lock, make_private, write_atomically

WRITTEN = "written.json"
CACHE = Path(".dvc/cache/files/md5")


def check_present(stage: Stage[Any], inputs: Paths) -> None:
    """Raise `ValueError`, with what brings it, for the first input that is missing."""
    for argument, path in inputs.items():
        if not path.exists():
            artifact = stage.inputs[argument]
            writer = _find_writer(stage, artifact)
            remedy = f"{artifact.path}.dvc pins it; `make data` builds the demo's, `dvc pull` fetches one from a remote"
            if writer:
                remedy = f"`dvc repro {writer.name}` makes it"
            raise ValueError(f"input {path} ({argument}) is missing: {remedy}")


def verify_inputs(stage: Stage[Any], inputs: Paths, digests: Mapping[str, str]) -> None:
    """Raise `ValueError`, naming the file where that is known, for an input with other bytes than were written.

    That can be told of inputs that lie where their artifacts do, once dvc.lock names them, or the directory that they
    lie in; of pinned ones where DVC runs the stage, because it has pinned them just before.
    """
    written, root = read_written(), Path()
    locked: Mapping[str, str] | None = None
    for argument, path in inputs.items():
        artifact, content = stage.inputs[argument], digests[argument]
        if path != Path(artifact.path) or written.get(artifact.path) == content:
            continue
        if issubclass(artifact, Pinned):
            expected = read_pin(artifact.path, root) if "DVC_STAGE" in os.environ else None
        else:
            locked = read_locked_digests(root) if locked is None else locked
            expected = locked.get(artifact.path) or _find_listed_digest(artifact.path, locked)
        if expected is None or expected == content:
            continue
        if not (issubclass(artifact, Pinned) and _has_only_ignored_besides(path, expected)):
            raise ValueError(_describe_damage(stage, artifact, expected, content))


def record_written(outputs: Paths, digests: Mapping[str, str]) -> None:
    """Note that a stage of this project wrote these outputs (argument -> path, digest)."""
    folder = make_private(WORK)
    with hold_lock(folder / f".{WRITTEN}"):
        digest_of = {str(path): digests[argument] for argument, path in outputs.items() if not path.is_absolute()}
        write_atomically(folder / WRITTEN, json.dumps(dict(sorted({**read_written(), **digest_of}.items())), indent=1))


def read_written() -> dict[str, str]:
    """Return the digests of what stages wrote here: path -> digest."""
    try:
        return dict(json.loads((WORK / WRITTEN).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _find_writer(stage: Stage[Any], artifact: type[Artifact]) -> Stage[Any] | None:
    return map_producers(load_stages(stage.module.partition(".")[0])).get(artifact)


def _describe_damage(stage: Stage[Any], artifact: type[Artifact], expected: str, content: str) -> str:
    path = Path(artifact.path)
    changed = _find_changed_file(path, expected)
    writer = _find_writer(stage, artifact)
    named_by = "dvc.lock" if writer else f"{artifact.path}.dvc"
    remedy = f"`dvc repro --force {writer.name}` makes it again" if writer else "`dvc checkout` brings it back"
    keep = f"`dvc commit {writer.name if writer else artifact.path}` if it is to be so"
    return (
        f"input {path} is not what was written ({content}; {named_by} says {expected})"
        f"{f': {changed} has changed' if changed else ''}; {remedy}, {keep}"
    )


def _find_changed_file(path: Path, expected: str) -> Path | None:
    """Return the first file whose bytes are not those in the listing of DVC's cache; None if the cache has none."""
    if not path.is_dir():
        return path
    before = _read_listing(expected)
    if before is None:
        return None
    now = list_digests(path)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return path / changed[0] if changed else None


def _has_only_ignored_besides(folder: Path, expected: str) -> bool:
    """Whether all files that DVC pinned are as they were. What lies beside them is what `.dvcignore` leaves out, for
    DVC has just pinned all else."""
    listing = _read_listing(expected)
    if listing is None or not folder.is_dir():
        return False
    return listing.items() <= list_digests(folder).items()


def _find_listed_digest(path: str, locked: Mapping[str, str]) -> str | None:
    """Return the digest of a file that dvc.lock names only by a directory above it, as `reports/<stage>`; None if it
    names none, or DVC's cache has no listing of it."""
    for folder in map(str, PurePosixPath(path).parents):
        if folder in locked:
            return (_read_listing(locked[folder]) or {}).get(PurePosixPath(path).relative_to(folder).as_posix())
    return None


def _read_listing(digest: str) -> dict[str, str] | None:
    """Return relative path -> MD5 of a directory's files out of DVC's cache; None if it is not there."""
    try:
        entries = json.loads((CACHE / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return None
