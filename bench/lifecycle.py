"""What the lifecycle costs beside the work: a stage that does nothing, and `dvc repro` with nothing to do.

    python -m bench.lifecycle

Medians over RUNS processes, after one that warms up. The first is timed in a project of its own; the second here,
where `make demo` has run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measurement import ROOT, measure_in_turns, measure_seconds

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


def print_command_seconds(name: str, module: str, *arguments: str, folder: Path) -> None:
    """Time `python -m <module> <arguments>` in `folder`, and print the median with its range."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(folder), str(ROOT)]))}

    def run() -> None:
        subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, env=env, check=True, capture_output=True)

    seconds = measure_in_turns({name: lambda: measure_seconds(run)}, RUNS)[name]
    print(f"{name}: median {statistics.median(seconds):.2f} s of {RUNS} ({min(seconds):.2f} to {max(seconds):.2f})")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory)
        (project / "components").mkdir()
        (project / "components" / "__init__.py").touch()
        (project / "components" / "nothing.py").write_text(STAGE_SOURCE)
        (project / "params.yaml").write_text("nothing:\n  seed: 0\n")
        print_command_seconds("stage that does nothing, recorded", "lifecycle", "run", "nothing", folder=project)
    if (ROOT / "dvc.lock").exists():
        print_command_seconds("dvc repro with nothing to do", "dvc", "repro", folder=ROOT)
    else:
        print("dvc repro with nothing to do: run `make demo` first", file=sys.stderr)


if __name__ == "__main__":
    main()
