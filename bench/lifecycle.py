"""What the lifecycle costs beside the work: a stage that does nothing, and `dvc repro` with nothing to do.

    python -m bench.lifecycle

Medians over RUNS processes. The first is timed in a project of its own; the second here, where `make demo` has run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5

STAGE_SOURCE = '''
"""A stage that does nothing."""
from dataclasses import dataclass

from lifecycle.declare.stage import Metrics, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    seed: int


@stage()
def nothing(nothing: Nothing, metrics: Output[Metrics]) -> None:
    """Do nothing."""
    metrics.path.write_text('{"one": 1}')
'''


def measure_seconds(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    clock = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True)
    return time.perf_counter() - clock


def print_report(name: str, times: list[float]) -> None:
    print(f"{name}: median {statistics.median(times):.2f} s of {len(times)} ({min(times):.2f} to {max(times):.2f})")


def main() -> None:
    root = Path.cwd()
    env = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        (project / "components").mkdir()
        (project / "components" / "__init__.py").touch()
        (project / "components" / "nothing.py").write_text(STAGE_SOURCE)
        (project / "params.yaml").write_text("nothing:\n  seed: 0\n")
        env_there = {**env, "PYTHONPATH": f"{project}{os.pathsep}{root}"}
        command = [sys.executable, "-m", "lifecycle", "run", "nothing"]
        measure_seconds(command, project, env_there)  # makes the tracking store
        print_report(
            "stage that does nothing, recorded", [measure_seconds(command, project, env_there) for _ in range(RUNS)]
        )
    if (root / "dvc.lock").exists():
        command = [sys.executable, "-m", "dvc", "repro"]
        measure_seconds(command, root, env)
        print_report("dvc repro with nothing to do", [measure_seconds(command, root, env) for _ in range(RUNS)])
    else:
        print("dvc repro with nothing to do: run `make demo` first", file=sys.stderr)


if __name__ == "__main__":
    main()
