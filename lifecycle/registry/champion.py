"""The pinned input that holds what DVC knows of the registry's champion.

champion.json  name, version, digest, git_sha, data_digest, parts (model -> digest), metrics, and of its origin
               artifacts (path -> digest), params (`section.key` -> value) and runs (path -> address);
               {"version": null} when there is none
<name>/        each directory of the evidence that it was registered with; none when there is no champion
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from lifecycle.declare.stage import PinnedChampion
from lifecycle.registry.pinned import replace
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.workspace.staging import WORK, private

FACTS = "champion.json"


def pull(registry: MlflowRegistry, whole: str, pinned: type[PinnedChampion], root: Path) -> str | None:
    """Write `pinned` of the project at `root` and its pin from what the registry knows of the composite `whole`; the
    champion's version, None if there is no champion."""
    with tempfile.TemporaryDirectory(dir=private(root / WORK)) as folder:
        known = registry.champion(whole, Path(folder))
        if known is None:
            replace(pinned.path, pinned.write_empty, root)
            return None
        evidence = Path(folder) / "evidence"
        origin = json.loads((evidence / "origin.json").read_text(encoding="utf-8"))
        facts = {key: known[key] for key in ("name", "version", "digest", "git_sha", "data_digest", "parts")}
        facts["metrics"] = json.loads(known["metrics"])
        facts |= {key: origin[key] for key in ("artifacts", "params", "runs")}

        def write(place: Path) -> None:
            place.mkdir()
            (place / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            for table in filter(Path.is_dir, evidence.iterdir()):
                shutil.copytree(table, place / table.name)

        replace(pinned.path, write, root)
        return str(known["version"])
