"""Inputs that no stage writes: a directory, and `<path>.dvc`, which pins its content in git.

`champion/` and `ratings/` have an empty form that everybody begins with. It is small and the same everywhere, so a
fresh checkout writes it again instead of fetching it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from lifecycle.workspace.digest import digest
from lifecycle.workspace.staging import WORK, private


def pinned_digest(path: str, root: Path) -> str:
    """The digest that `<path>.dvc` names; `ValueError` if there is no such file."""
    pin = root / f"{path}.dvc"
    if not pin.is_file():
        raise ValueError(f"{pin.name} is missing: `git checkout {pin.name}` brings it back")
    return str(YAML(typ="safe", pure=True).load(pin.read_text(encoding="utf-8"))["outs"][0]["md5"])


def restore_empty(path: str, write: Callable[[Path], None], root: Path) -> bool:
    """Write the empty form of a pinned input (`write` makes the directory it is given) if nothing is there and
    the pin names the empty form; whether it was written."""
    if (root / path).exists():
        return False
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        made = Path(folder) / path
        write(made)
        if digest(made) != pinned_digest(path, root):
            return False  # `dvc pull` has to bring something that is not empty
        made.rename(root / path)
    return True


def replace(path: str, write: Callable[[Path], None], root: Path) -> str:
    """Put what `write` makes in the place of a pinned input, and pin it; its digest.

    Only a whole directory replaces what was there. `ValueError` if DVC refuses.
    """
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        made = Path(folder) / path
        write(made)
        found = digest(made)
        if (root / path).exists():
            (root / path).rename(Path(folder) / "former")
        made.rename(root / path)
    _add(path, root)
    return found


def _add(path: str, root: Path) -> None:
    command = [sys.executable, "-m", "dvc", "add", "--quiet", path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{path}/ is written, but `dvc add {path}` failed: {' '.join(done.stderr.split())}")
