"""`python -m pipelines.ask_outside`: the command `outside`, unless nothing is known to be read there.

DVC asks before every `dvc repro`, and importing the stages takes a second and more: so nothing but the standard library
is imported here before that is needed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

OUTSIDE = "artifacts/outside"  # a file for each stage that reads outside: address -> fingerprint, JSON
MEMORY = ".work/outside.json"
DECLARED = "params.yaml", "dvc.yaml"


def main() -> int:
    """Ask, if need be, and return the exit code."""
    if is_known_empty(Path.cwd()):
        return 0
    from pipelines.__main__ import main as run

    return run(["outside"])


def is_known_empty(root: Path) -> bool:
    """Return whether nothing was read outside by these params, and what they name is no path now, either."""
    try:
        memory = json.loads((root / MEMORY).read_text(encoding="utf-8"))
        return bool(
            memory["declared"] == _digest_declared(root)
            and all((root / OUTSIDE / stage).is_file() for stage in memory["stages"])
            and not any((root / Path(name).expanduser()).exists() for name in memory["names"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember_empty(root: Path, stages: Iterable[str], names: Iterable[str]) -> None:
    """Remember that the stages read nothing outside, and the weights' names, which are no paths."""
    memory = {"declared": _digest_declared(root), "stages": sorted(stages), "names": sorted(set(names))}
    (root / MEMORY).parent.mkdir(exist_ok=True)
    (root / MEMORY).write_text(json.dumps(memory), encoding="utf-8")


def _digest_declared(root: Path) -> list[str]:
    return [hashlib.md5((root / file).read_bytes(), usedforsecurity=False).hexdigest() for file in DECLARED]


if __name__ == "__main__":
    sys.exit(main())
