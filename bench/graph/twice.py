"""Does the whole graph give the same bytes twice? `python -m bench.graph.twice`, or `make twice`.

Every stage of profile tiny runs in two processes, one after the other, with other hashes of text and in other folders;
the second folder's name has what addresses, patterns and shells take for their own.
Each file is compared by its bytes; the names of those that differ are printed, and the exit code is 1. Stages that ask
the registry write ids of runs, which MLflow draws anew: these count as equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from bench.graph.project import digest_files, get_paths, run_graph, write_project

FOLDERS = {"1": "plain", "2": 'odd ?#%20 [x] "q" ä'}
"""PYTHONHASHSEED -> name of the project's folder."""


def main(arguments: list[str]) -> int:
    """Run the graph in two processes and compare; with a folder, be one of these and print file -> digest."""
    if arguments:
        for stage in run_graph(Path(arguments[0])):
            digests = digest_files(get_paths(stage)[1])
            if stage.registry:
                digests = {file: _digest_without_ids(Path(file)) for file in digests}
            print(json.dumps({stage.name: digests}), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run_in_process(Path(folder) / name, seed) for seed, name in FOLDERS.items()]
    first, second = runs
    changed = sorted(file for file in first.keys() | second.keys() if first.get(file) != second.get(file))
    print("\n".join(changed) or f"{len(first)} files, all equal")
    return int(bool(changed))


def _digest_without_ids(file: Path) -> str:
    """Return the digest of a file without the ids of runs in the store of this project."""
    content = file.read_bytes()
    with closing(sqlite3.connect(".mlflow/mlflow.db")) as store:
        for (run_id,) in store.execute("select run_uuid from runs"):
            content = content.replace(run_id.encode(), b"run")
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _run_in_process(root: Path, hash_seed: str) -> dict[str, str]:
    write_project(root)
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.graph.twice", str(root)]
    printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {file: content for line in lines for digests in line.values() for file, content in digests.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
