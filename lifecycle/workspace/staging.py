"""Where a stage works until its outs are whole: `.work/<stage>/<key>/`.

    lock      held by the process that works here
    outs/     what the stage is writing; a killed run's is thrown away
    scratch/  checkpoints; a killed run's is handed to the next run with the same key

The key is a digest of the stage's parameters, inputs and code, so that a resumed checkpoint belongs to
exactly this run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

WORK = Path(".work")


@contextmanager
def workspace(stage: str, key: str, work: Path = WORK) -> Iterator[Path]:
    """The directory `<work>/<stage>/<key>`, locked, with an empty `outs/` and a `scratch/`.

    On success it is removed together with what killed runs of the same stage left; on failure only `outs/` is.
    `ValueError` if another process runs the same stage with the same key.
    """
    place = private(work) / stage / key
    place.mkdir(parents=True, exist_ok=True)
    with _lock(place) as locked:
        if not locked:
            raise ValueError(f"it already runs with the same parameters, inputs and code in {place}: wait for it")
        shutil.rmtree(place / "outs", ignore_errors=True)
        (place / "outs").mkdir()
        (place / "scratch").mkdir(exist_ok=True)
        try:
            yield place
        except BaseException:
            shutil.rmtree(place / "outs", ignore_errors=True)
            raise
        shutil.rmtree(place, ignore_errors=True)
    for stale in place.parent.iterdir():
        with _lock(stale) as idle:
            if idle:
                shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def staged(targets: Mapping[str, Path], names: Mapping[str, str], place: Path) -> Iterator[dict[str, Path]]:
    """Argument -> where its out is written first: on the target's file system, so that a rename suffices.

    That is below `place`, or beside a target that lies on another file system. The last part is the
    artifact's own name, because writers choose a format by suffix. What is left there at the end is removed.
    """
    folders = {argument: _staging(place / "outs" / argument, target) for argument, target in targets.items()}
    try:
        yield {argument: folder / names[argument] for argument, folder in folders.items()}
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _staging(folder: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".partial-{target.name}"
    shutil.rmtree(beside, ignore_errors=True)  # a killed run's
    folder.mkdir(parents=True)
    try:
        folder.rename(beside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside.mkdir()
        return beside
    beside.rename(folder)
    return folder


def put(written: Path, target: Path) -> None:
    """Move a whole out to its place by rename. A file there is replaced at once; a directory is moved away first."""
    former = written.parent / f"{written.name}.former"
    if target.is_dir() or written.is_dir():
        with suppress(FileNotFoundError):
            target.rename(former)
    written.replace(target)


def private(folder: Path) -> Path:
    """`folder`, made if need be, and ignored by git from inside."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@contextmanager
def _lock(place: Path) -> Iterator[bool]:
    """Whether this process got the lock of `place`; the system frees it when the process ends in any way."""
    try:
        handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        yield False  # removed meanwhile by another run
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
