"""Directories of safetensors that are whole or not there.

A directory is written beside its place and renamed into it, with the CRC-32 of each file in its state.json: a run
killed at any moment finds the former one, and a damaged one is told from a good one. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

MAX_CHECKPOINTS = 2
"""Checkpoints on disk: the last, and one to fall back on."""

CHUNK = 1 << 24
HEADER_SIZE_BYTES = 8

Files = dict[str, dict[str, torch.Tensor]]
"""Name of a file, without suffix -> its tensors."""


class DamagedError(Exception):
    """A directory that does not hold what was written."""


def sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file into alphabetical order, in place: safetensors writes two or more entries
    in another order each time (its format: 8 bytes, the header's length; the header, JSON; the tensors)."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, f"the header of {path} became longer: {len(text)} bytes for {size}"
        file.seek(HEADER_SIZE_BYTES)
        file.write(text.ljust(size))  # padded with spaces, as safetensors does


def get_step_directory(parent: Path, step: int) -> Path:
    """Return the place of a step's directory."""
    return parent / f"step-{step:08d}"


def list_steps(parent: Path) -> list[int]:
    """Return the steps that have a directory in `parent`, ascending; whole or not."""
    return sorted(int(path.name.removeprefix("step-")) for path in parent.glob("step-*") if path.is_dir())


def write_checkpoint(
    directory: Path, files: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]
) -> None:
    """Write contiguous CPU tensors and a JSON-able `state` as `directory`, in the stead of what is there."""
    with replace_directory(directory) as partial:
        checksums = {}
        for name, tensors in files.items():
            path = partial / f"{name}.safetensors"
            save_file(dict(tensors), path)
            checksums[name] = _compute_checksum(path)
        index = {"checksums": checksums, "state": state}
        (partial / "state.json").write_text(json.dumps(index), encoding="utf-8")


def read_checkpoint(directory: Path) -> tuple[Files, dict[str, Any]]:
    """Read what `write_checkpoint` wrote: files and state. Raises DamagedError for anything else."""
    try:
        index = json.loads((directory / "state.json").read_text(encoding="utf-8"))
        checksums, state = index["checksums"], index["state"]
        for name, checksum in checksums.items():
            if _compute_checksum(directory / f"{name}.safetensors") != checksum:
                raise DamagedError(f"{directory / name}.safetensors is not as it was written")
    except (OSError, ValueError, KeyError) as error:
        raise DamagedError(f"{directory} is not whole ({type(error).__name__}: {error})") from error
    return {name: load_file(directory / f"{name}.safetensors") for name in checksums}, state


def read_last_checkpoint(parent: Path) -> tuple[int, Files, dict[str, Any]] | None:
    """Read the latest undamaged checkpoint in `parent`: its step, files and state; a warning for each damaged one.

    A state that has `snapshots`, a directory in `parent`, is whole only with those of its step.
    """
    for step in reversed(list_steps(parent)):
        try:
            files, state = read_checkpoint(get_step_directory(parent, step))
            if state.get("snapshots"):
                files |= read_checkpoint(get_step_directory(parent / state["snapshots"], step))[0]
            return step, files, state
        except DamagedError as damage:
            warnings.warn(f"checkpoint {get_step_directory(parent, step)} is passed over: {damage}", stacklevel=2)
    return None


def delete_old_checkpoints(parent: Path, newest: int) -> None:
    """Keep the last MAX_CHECKPOINTS up to step `newest`, remove earlier ones and those of an abandoned future."""
    steps = [step for step in list_steps(parent) if step <= newest]
    for step in set(list_steps(parent)) - set(steps[-MAX_CHECKPOINTS:]):
        shutil.rmtree(get_step_directory(parent, step))


def _compute_checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


@contextmanager
def replace_directory(directory: Path, writer: str = "") -> Iterator[Path]:
    """Yield a new directory that takes the place of `directory` when its files are on the disk: whole or not there.
    `writer` tells apart processes that may write the same directory."""
    partial = directory.with_name(f".{directory.name}{writer}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in partial.iterdir():
        _sync_to_disk(path)  # so that the rename never outruns the data
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)
    _sync_to_disk(directory.parent)


def _sync_to_disk(path: Path) -> None:
    """Push a file or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
