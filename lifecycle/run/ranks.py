"""A stage that trains on many GPUs or cores of one machine: processes under torchrun, rank 0 the run, others helpers.

`CANVAS_RANKS` says how many; on a cluster `pipelines/cluster.yaml` does. Every rank calls the stage's function: rank 0
within the wrapper of `lifecycle.run.stage`, with its record; what a helper writes is thrown away. They share the
checkpoints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lifecycle.declare.skipping import is_skipped
from lifecycle.declare.stage import Paths, Stage
from lifecycle.workspace.staging import write_atomically
from lifecycle.workspace.supervisor import supervise_command

RANKS = "CANVAS_RANKS"
JOB = "CANVAS_RANKS_JOB"  # environment of the ranks: the directory by which they find each other


class SilentLog:
    """The log of a helper records nothing: rank 0 has the same."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, name: str, png: bytes) -> None: ...


def count_ranks(stage: Stage[Any], settings: Mapping[str, Any]) -> int:
    """Return as how many processes to run: `CANVAS_RANKS` if the stage trains and its params spread the training, or 1.
    Raises `ValueError` for a number that is none."""
    ranks = os.environ.get(RANKS, "1")
    if not ranks.isdecimal() or int(ranks) < 1:
        raise ValueError(f"{RANKS} is {ranks!r}: it must be a number of processes, 1 or more")
    if stage.machine != "gpus" or JOB in os.environ or is_skipped(stage, settings):
        return 1
    return int(ranks) if is_parallel(settings) else 1


def launch_ranks(
    stage: Stage[Any], sections: Mapping[str, Any], inputs: Paths, outputs: Paths, *, processes: int, send: bool
) -> None:
    """Run `stage` as so many ranks of this machine, to the end. Raises `ValueError` with the first rank's error."""
    package, _, name = stage.module.rpartition(".")
    job = {"stage": name, "package": package, "sections": sections, "inputs": inputs, "outputs": outputs, "send": send}
    with tempfile.TemporaryDirectory(prefix="canvas-ranks-") as folder:
        place = Path(folder)
        (place / "job.json").write_text(json.dumps(job, default=str), encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // processes)  # so that together they have the machine's cores once
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, JOB: folder}
        command = supervise_command([*torchrun, "-m", "lifecycle.run.ranks"])  # no rank outlives this process
        process = subprocess.Popen(command, env=environment)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun passes it on, and waits for its ranks
                process.wait()
        if code:
            error = place / "error"
            text = error.read_text(encoding="utf-8") if error.exists() else f"its ranks ended with code {code}"
            raise ValueError(text)


def publish_scratch(scratch: Path) -> None:
    """Let helpers begin: rank 0 has its workspace. Does nothing without ranks."""
    if folder := os.environ.get(JOB):
        write_atomically(Path(folder) / "scratch", str(scratch.resolve()))


def main() -> None:
    """Run one rank, as torchrun starts it."""
    from lifecycle.declare.graph import load_stage
    from lifecycle.record.privacy import disable_telemetry
    from lifecycle.run.stage import exit_on_user_errors, run_stage

    disable_telemetry()
    folder = Path(os.environ[JOB])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    inputs, outputs = ({key: Path(path) for key, path in job[name].items()} for name in ("inputs", "outputs"))
    with exit_on_user_errors(job["stage"]), _report_error(folder):
        stage = load_stage(job["stage"], job["package"])
        if os.environ["RANK"] == "0":
            run_stage(stage, job["sections"], inputs, outputs, send=job["send"])
        else:
            _run_helper(stage, job["sections"], inputs, folder)


def _run_helper(stage: Stage[Any], sections: Mapping[str, Any], inputs: Paths, folder: Path) -> None:
    """Call the stage's function for what its ranks do together."""
    from lifecycle.declare.params import read_stage_params
    from lifecycle.run.stage import build_arguments

    while not (folder / "scratch").exists():  # torchrun ends this process if rank 0 fails before
        time.sleep(0.05)
    scratch = Path((folder / "scratch").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="canvas-rank-") as aside:
        outputs = {}
        for argument, artifact in stage.outputs.items():
            outputs[argument] = Path(aside) / argument / Path(artifact.path).name
            outputs[argument].parent.mkdir()
        params = read_stage_params(stage, sections)
        stage.function(**build_arguments(stage, params, inputs, outputs, scratch, SilentLog()))


@contextmanager
def _report_error(folder: Path) -> Iterator[None]:
    """Leave what goes wrong in the first rank that fails for `launch_ranks` to say."""
    try:
        yield
    except Exception as error:
        file = folder / f"error.{os.environ['RANK']}"
        file.write_text(" ".join(str(error).split()) or type(error).__name__, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(file, folder / "error")
        if isinstance(error, ValueError | OSError):
            raise SystemExit(1) from None
        raise


def is_parallel(settings: Any) -> bool:
    """Whether any of the values has `parallel` other than none."""
    if not isinstance(settings, Mapping):
        return False
    return settings.get("parallel", "none") != "none" or any(map(is_parallel, settings.values()))


if __name__ == "__main__":
    main()
