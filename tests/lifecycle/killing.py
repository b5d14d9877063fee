"""Run a stage again and again in forked processes, each killed by SIGKILL one file operation later than the last.

`python -m tests.lifecycle.killing STAGE` in a project; prints a JSON line a moment: what each out holds then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections
from lifecycle.run.stage import run_stage
from lifecycle.workspace.digest import digest

FILE_OPERATIONS = ("open", "os.", "shutil.", "fcntl.")


def run_at(name: str, place: Path) -> None:
    """Run the stage with its outs below `place`."""
    stage = load_stage(name)
    inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
    outputs = {argument: place / artifact.path for argument, artifact in stage.outputs.items()}
    run_stage(stage, load_sections(), inputs, outputs, send=False)


def kill_at(moment: int) -> None:
    """Kill this process at its file operation number `moment` from now."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(FILE_OPERATIONS):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main() -> None:
    name = sys.argv[1]
    outputs = [Path(artifact.path) for artifact in load_stage(name).outputs.values()]
    run_at(name, Path("elsewhere"))  # imports are over when the counting begins
    moment, status = 0, -1
    while status:
        moment += 1
        child = os.fork()
        if child == 0:
            try:
                kill_at(moment)
                run_at(name, Path())
            except BaseException as error:
                print(error, file=sys.stderr)
                os._exit(2)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), f"moment {moment}: status {status}"
        print(json.dumps({str(path): digest(path) if path.exists() else None for path in outputs}))


if __name__ == "__main__":
    main()
