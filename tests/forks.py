"""Modules that run in forks of one process which has imported MLflow, KFP and DVC: most commands of the project take
longer to import these than to do their work. `-m tests.forks` is that process; it runs none of the project's code."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lifecycle.record.privacy import TELEMETRY_OFF
from lifecycle.record.tracking import configure_mlflow

ROOT = Path(__file__).parents[1]
SECONDS = 120.0  # that a command may take
PRELOADED = (
    "mlflow.tracking.client",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "kfp.compiler",
    "kfp.kubernetes",
    "dvc.cli",
    "dvc.repo",
)


def run_module(
    module: str, *arguments: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` in `folder`, with no other environment, as a process of its own."""
    server = _start_server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        job = {"module": module, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        server.stdin.write(json.dumps(job | {"streams": streams}) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        output, errors = ((Path(streams) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess((module, *arguments), status, output, errors)


@cache
def _start_server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=ROOT,
        env=os.environ | TELEMETRY_OFF | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)  # which closes its input: it ends
    return server


def _serve() -> str | None:
    """Fork for each job on stdin and answer with its exit status. Return in the fork, with the module to run; or None
    when there are no more jobs."""
    while line := sys.stdin.readline():
        job = json.loads(line)
        if not (child := os.fork()):
            _become(job)
            return str(job["module"])
        until = time.monotonic() + SECONDS
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
    return None


def _become(job: Mapping[str, object]) -> None:
    """Make this process one that was started for the job."""
    streams, folder = Path(str(job["streams"])), str(job["folder"])
    for number, path in enumerate((os.devnull, streams / "stdout", streams / "stderr")):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(job["environment"])  # type: ignore[call-overload]
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = [str(job["module"]), *job["arguments"]]  # type: ignore[misc]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lifecycle", "tests")]:
        del sys.modules[name]


if __name__ == "__main__":
    configure_mlflow()
    for name in PRELOADED:
        importlib.import_module(name)
    if (module := _serve()) is not None:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
