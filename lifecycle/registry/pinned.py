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
from lifecycle.declare.pinned import PinnedChampion, PinnedState
from lifecycle.declare.stage import Stage
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.workspace.digest import digest, read_pin
from lifecycle.workspace.staging import WORK, make_private, sync_to_disk

T = TypeVar("T")


def restore_inputs(stages: Iterable[Stage[Any]], root: Path) -> list[str]:
    """Write the empty form of every pinned input whose pin names it; return a line about each that has a pin."""
    lines = []
    for pinned in find_artifacts(stages, PinnedState):
        if read_pin(pinned.path, root):
            if restore_empty(pinned, root):
                lines.append(f"{pinned.path}/ is written: {pinned.empty}")
            elif (root / pinned.path).exists():
                lines.append(f"{pinned.path}/ is there")
            else:
                lines.append(f"{pinned.path}/ is missing: `dvc pull {pinned.path}.dvc` brings what its pin names")
    return lines


def restore_empty(pinned: type[PinnedState], root: Path) -> bool:
    """Write the empty form of a pinned input if nothing is there and its pin names it; return whether it was written.
    `ValueError` if there is no pin."""
    place = root / pinned.path
    if place.exists():
        return False
    pin = _require_pin(pinned.path, root)
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        empty = Path(folder) / place.name
        pinned.write_empty(empty)
        if digest(empty) != pin:
            return False  # `dvc pull` has to bring something that is not empty
        empty.rename(place)
    return True


def restore(pinned: type[PinnedState], root: Path) -> Path:
    """Return where the pinned input lies, with the content that its pin names: the empty form is written, another one
    DVC brings from its cache or remote. `ValueError` if it cannot, or if something else lies there."""
    path = pinned.path
    restore_empty(pinned, root)
    for command in ("checkout", "pull"):
        if not (root / path).exists():
            _run_dvc(root, command, f"{path}.dvc")
    if not (root / path).is_dir():
        raise ValueError(f"{path}/ is missing and DVC does not have it here: `dvc pull {path}.dvc` where it was made")
    content, pin = digest(root / path), _require_pin(path, root)
    if content != pin:
        raise ValueError(
            f"{path}/ is not what {path}.dvc pins ({content}, not {pin}): `dvc checkout --force {path}.dvc` brings "
            f"that back, `dvc add {path}` keeps what is there"
        )
    return root / path


def _require_pin(path: str, root: Path) -> str:
    pin = read_pin(path, root)
    if pin is None:
        raise ValueError(f"{path}.dvc is missing: `git checkout {path}.dvc` brings it back")
    return pin


def _run_dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments, "--quiet"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def replace_pinned(path: str, write: Callable[[Path], T], root: Path) -> T:
    """Put what `write` makes in the place of a pinned input, and pin it; return what `write` returns.

    Only a whole directory replaces what was there. `ValueError` if DVC refuses.
    """
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        new = Path(folder) / path
        result = write(new)
        sync_to_disk(new)
        if (root / path).exists():
            (root / path).rename(Path(folder) / "former")
        new.rename(root / path)
    added = _run_dvc(root, "add", path)
    if added.returncode:
        raise ValueError(f"{path}/ is written, but `dvc add {path}` failed: {' '.join(added.stderr.split())}")
    return result


def pull_champion(registry: MlflowRegistry, composite: str, pinned: type[PinnedChampion], root: Path) -> str | None:
    """Write `pinned` and its pin from what the registry knows of the champion; return its version, None if there is
    no champion. `ValueError` if there is none, and the pin names one: another registry's is not thrown away."""
    with tempfile.TemporaryDirectory(dir=make_private(root / WORK)) as folder:
        champion = registry.read_champion(composite, Path(folder))
        if champion is None:
            pinned.write_empty(Path(folder) / "empty")
            if read_pin(pinned.path, root) not in (None, digest(Path(folder) / "empty")):
                raise ValueError(
                    f"this registry has no champion of {composite}, but {pinned.path}.dvc pins one, which stays: set "
                    f"MLFLOW_TRACKING_URI to the registry that has it, or delete {pinned.path}.dvc to begin anew"
                )
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
