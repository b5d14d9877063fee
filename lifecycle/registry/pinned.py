"""Inputs that no stage writes: a directory, and `<path>.dvc`, which pins its content in git.

A `PinnedState` has an empty form that everybody begins with. It is small and the same everywhere, so a fresh checkout
writes it again instead of fetching it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ruamel.yaml import YAML

from lifecycle.declare.stage import PinnedState
from lifecycle.workspace.digest import digest
from lifecycle.workspace.staging import WORK, private

T = TypeVar("T")


def pinned_digest(path: str, root: Path) -> str:
    """The digest that `<path>.dvc` names; `ValueError` if there is no such file."""
    pin = root / f"{path}.dvc"
    if not pin.is_file():
        raise ValueError(f"{pin.name} is missing: `git checkout {pin.name}` brings it back")
    return str(YAML(typ="safe", pure=True).load(pin.read_text(encoding="utf-8"))["outs"][0]["md5"])


def restore_empty(pinned: type[PinnedState], root: Path) -> bool:
    """Write the empty form of a pinned input if nothing is there and its pin names it; whether it was written."""
    place = root / pinned.path
    if place.exists():
        return False
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        made = Path(folder) / place.name
        pinned.write_empty(made)
        if digest(made) != pinned_digest(pinned.path, root):
            return False  # `dvc pull` has to bring something that is not empty
        made.rename(place)
    return True


def restore(pinned: type[PinnedState], root: Path) -> Path:
    """Where the pinned input lies, its empty form written if need be. `ValueError` if what the pin names is missing."""
    restore_empty(pinned, root)
    if not (root / pinned.path).is_dir():
        raise ValueError(f"{pinned.path} is missing: `dvc checkout` or `dvc pull` brings it back")
    return root / pinned.path


def replace(path: str, write: Callable[[Path], T], root: Path) -> T:
    """Put what `write` makes in the place of a pinned input, and pin it; what `write` returns.

    Only a whole directory replaces what was there. `ValueError` if DVC refuses.
    """
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        made = Path(folder) / path
        result = write(made)
        if (root / path).exists():
            (root / path).rename(Path(folder) / "former")
        made.rename(root / path)
    _add(path, root)
    return result


def _add(path: str, root: Path) -> None:
    command = [sys.executable, "-m", "dvc", "add", "--quiet", path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{path}/ is written, but `dvc add {path}` failed: {' '.join(done.stderr.split())}")
