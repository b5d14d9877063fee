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
def open_workspace(stage: str, key: str, work: Path = WORK) -> Iterator[Path]:
    """Lock the directory `<work>/<stage>/<key>`, with an empty `outs/` and a `scratch/`.

    On success it is removed together with what killed runs of the same stage left; on failure only `outs/` is.
    `ValueError` if another process runs the same stage with the same key.
    """
    folder = make_private(work) / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / "lock") as locked:
        if not locked:
            raise ValueError(f"it already runs with the same parameters, inputs and code in {folder}: wait for it")
        shutil.rmtree(folder / "outs", ignore_errors=True)
        (folder / "outs").mkdir()
        (folder / "scratch").mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder / "outs", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    for stale in folder.parent.iterdir():
        with try_lock(stale / "lock") as idle:
            if idle:
                shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def reserve_outputs(targets: Mapping[str, Path], names: Mapping[str, str], work: Path) -> Iterator[dict[str, Path]]:
    """Give argument -> where its out is written first: on the target's file system, so that a rename suffices.

    That is below `work`, or beside the target. The last part is the artifact's own name, because writers choose a
    format by suffix. What is left there at the end is removed.
    """
    folders = {argument: _reserve_folder(work / "outs" / argument, target) for argument, target in targets.items()}
    try:
        yield {argument: folder / names[argument] for argument, folder in folders.items()}
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _reserve_folder(folder: Path, target: Path) -> Path:
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


def move_into_place(written: Path, target: Path) -> None:
    """Move a whole out to its place by rename. A file there is replaced at once; a directory is moved away first."""
    former = written.parent / f"{written.name}.former"
    sync_to_disk(written)  # so that the rename never outruns the data
    if target.is_dir() or written.is_dir():
        with suppress(FileNotFoundError):
            target.rename(former)
    written.replace(target)
    sync_entry(target.parent)


def sync_to_disk(path: Path) -> None:
    """Push a file, or a directory with all below it, to the disk: it survives a loss of power."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                sync_entry(Path(folder) / name)
            sync_entry(Path(folder))
    else:
        sync_entry(path)


def sync_entry(path: Path) -> None:
    """Push a file, or the names in a directory and nothing below it, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> Path:
    """Make the folder if need be, ignored by git from inside."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Whether this process got the lock; the system frees it when the process ends in any way."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        yield False  # the folder was removed meanwhile by another run
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Wait for the lock and hold it while the context lasts."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str) -> None:
    """Replace the file by one of this text that only its owner can read, whole at every moment, also after a
    loss of power."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_entry(path.parent)
