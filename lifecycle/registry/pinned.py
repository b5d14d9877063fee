"""Inputs that no stage writes: a directory, and `<path>.dvc`, which pins its content in git.

A `PinnedState` has an empty form that everybody begins with. It is small and the same everywhere, so a fresh checkout
writes it again instead of fetching it. The champion's holds what DVC knows of the registry's champion:

champion.json  name, version, digest, git_sha, data_digest, parts (model -> digest), metrics, and of its origin
               artifacts (path -> digest), params (`section.key` -> value) and runs (path -> address);
               {"version": null} when there is none
<name>/        each directory of the evidence that it was registered with; none when there is no champion
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lifecycle.declare.graph import find_artifacts
from lifecycle.declare.stage import PinnedChampion, PinnedState, Stage
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.workspace.digest import digest, read_pin
from lifecycle.workspace.staging import WORK, make_private

T = TypeVar("T")


def restore_inputs(stages: Iterable[Stage[Any]], root: Path) -> list[str]:
    """Write the empty form of every pinned input whose pin names it; return a line about each that has a pin."""
    lines = []
    for pinned in find_artifacts(stages, PinnedState):
        if read_pin(pinned.path, root):
            written = restore_empty(pinned, root)
            lines.append(f"{pinned.path}/ is written: {pinned.empty}" if written else f"{pinned.path}/ is there")
    return lines


def restore_empty(pinned: type[PinnedState], root: Path) -> bool:
    """Write the empty form of a pinned input if nothing is there and its pin names it; return whether it was written.
    `ValueError` if there is no pin."""
    place = root / pinned.path
    if place.exists():
        return False
    pin = read_pin(pinned.path, root)
    if pin is None:
        raise ValueError(f"{pinned.path}.dvc is missing: `git checkout {pinned.path}.dvc` brings it back")
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        empty = Path(folder) / place.name
        pinned.write_empty(empty)
        if digest(empty) != pin:
            return False  # `dvc pull` has to bring something that is not empty
        empty.rename(place)
    return True


def restore(pinned: type[PinnedState], root: Path) -> Path:
    """Return where the pinned input lies, its empty form written if need be. `ValueError` if it is missing."""
    restore_empty(pinned, root)
    if not (root / pinned.path).is_dir():
        raise ValueError(f"{pinned.path} is missing: `dvc checkout` or `dvc pull` brings it back")
    return root / pinned.path


def replace_pinned(path: str, write: Callable[[Path], T], root: Path) -> T:
    """Put what `write` makes in the place of a pinned input, and pin it; return what `write` returns.

    Only a whole directory replaces what was there. `ValueError` if DVC refuses.
    """
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        new = Path(folder) / path
        result = write(new)
        if (root / path).exists():
            (root / path).rename(Path(folder) / "former")
        new.rename(root / path)
    command = [sys.executable, "-m", "dvc", "add", "--quiet", path]
    added = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if added.returncode:
        raise ValueError(f"{path}/ is written, but `dvc add {path}` failed: {' '.join(added.stderr.split())}")
    return result


def pull_champion(registry: MlflowRegistry, composite: str, pinned: type[PinnedChampion], root: Path) -> str | None:
    """Write `pinned` and its pin from what the registry knows of the champion; return its version, None if there is
    no champion."""
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        champion = registry.read_champion(composite, Path(folder))
        if champion is None:
            replace_pinned(pinned.path, pinned.write_empty, root)
            return None
        evidence = Path(folder) / "evidence"
        origin = json.loads((evidence / "origin.json").read_text(encoding="utf-8"))
        facts = {key: champion[key] for key in ("name", "version", "digest", "git_sha", "data_digest", "parts")}
        facts["metrics"] = json.loads(champion["metrics"])
        facts |= {key: origin[key] for key in ("artifacts", "params", "runs")}

        def write(place: Path) -> None:
            place.mkdir()
            (place / pinned.facts).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            for table in filter(Path.is_dir, evidence.iterdir()):
                shutil.copytree(table, place / table.name)

        replace_pinned(pinned.path, write, root)
        return str(champion["version"])
