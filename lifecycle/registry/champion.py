"""The pinned input `champion/`: what DVC knows of the registry's champion.

champion.json         name, version, digest, git_sha, data_digest, parts (model -> digest), metrics, and of its origin
                      artifacts (path -> digest), params (`section.key` -> value) and runs (path -> address);
                      {"version": null} when there is none
evaluation/           the table of its evaluation; not there when there is none
training_statistics/  the table of what it learnt from; likewise
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle.catalog import CanvasModel, Champion
from lifecycle.registry.pinned import replace, restore_empty
from lifecycle.registry.versions import model_name
from lifecycle.workspace.staging import WORK, private

if TYPE_CHECKING:
    from lifecycle.registry.registry import MlflowRegistry

FACTS = "champion.json"
TABLES = ("evaluation", "training_statistics")
"""Of the evidence that a version is registered with."""


def pull(registry: MlflowRegistry, root: Path) -> str | None:
    """Write `champion/` of the project at `root` and its pin from the registry; the champion's version, None if there
    is no champion."""
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        known = registry.champion(model_name(CanvasModel), Path(folder))
        if known is None:
            replace(Champion.path, write_empty, root)
            return None
        evidence = Path(folder) / "evidence"
        origin = json.loads((evidence / "origin.json").read_text(encoding="utf-8"))
        facts = {key: known[key] for key in ("name", "version", "digest", "git_sha", "data_digest", "parts")}
        facts["metrics"] = json.loads(known["metrics"])
        facts |= {key: origin[key] for key in ("artifacts", "params", "runs")}

        def write(place: Path) -> None:
            place.mkdir()
            _write_facts(place, facts)
            for table in TABLES:
                shutil.copytree(evidence / table, place / table)

        replace(Champion.path, write, root)
        return str(known["version"])


def write_empty(place: Path) -> None:
    """Write the form that says that there is no champion."""
    place.mkdir()
    (place / FACTS).write_text(json.dumps({"version": None}) + "\n", encoding="utf-8")


def restore(root: Path) -> bool:
    """Write the empty form in a fresh checkout whose pin names it; whether it did."""
    return restore_empty(Champion.path, write_empty, root)


def _write_facts(place: Path, facts: dict[str, Any]) -> None:
    (place / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
