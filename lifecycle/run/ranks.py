"""A stage that trains on many GPUs or cores of one machine: as many processes under torchrun, rank 0 the run, others
helpers.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifecycle.declare.stage import Stage

RANKS = "CANVAS_RANKS"
JOB = "CANVAS_RANKS_JOB"
"""Environment of the ranks: the directory by which they find each other."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The log of a helper."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing: rank 0 has the same."""

    def image(self, name: str, png: bytes) -> None:
        """Nothing, likewise."""


def wanted(stage: Stage[Any], settings: Mapping[str, Any]) -> int:
    """Processes that `stage` is to run as: `CANVAS_RANKS` if it trains and its params spread the training, else 1.

    Raises `ValueError` for a number that is none.
    """
    given = os.environ.get(RANKS, "1")
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{RANKS} is {given!r}: it must be a number of processes, 1 or more")
    return int(given) if stage.machine == "gpus" and JOB not in os.environ and _spread(settings) else 1


def launch(
    stage: Stage[Any],
    sections: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    processes: int,
    send: bool,
) -> None:
    """Run `stage` as so many ranks of this machine, to the end. Raises `ValueError` with what the first that failed
    said."""
    package, _, name = stage.module.rpartition(".")
    job = {
        "stage": name,
        "package": package,
        "sections": sections,
        "inputs": {argument: str(path) for argument, path in inputs.items()},
        "outputs": {argument: str(path) for argument, path in outputs.items()},
        "send": send,
    }
    with tempfile.TemporaryDirectory(prefix="canvas-ranks-") as folder:
        place = Path(folder)
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        environment = {"OMP_NUM_THREADS": _threads(processes), **os.environ, JOB: folder}
        process = subprocess.Popen([*torchrun, "-m", "lifecycle.run.ranks"], env=environment)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun passes it on, and waits for its ranks
                process.wait()
        if code:
            said = place / "error"
            raise ValueError(said.read_text(encoding="utf-8") if said.exists() else f"its ranks ended with code {code}")


def announce(scratch: Path) -> None:
    """Rank 0 has its workspace: helpers may begin. Nothing without ranks."""
    if folder := os.environ.get(JOB):
        found = Path(folder) / "scratch.part"
        found.write_text(str(scratch.resolve()), encoding="utf-8")
        found.rename(found.with_suffix(""))


def main() -> None:
    """One rank, as torchrun starts it."""
    from lifecycle.declare.graph import load_stage
    from lifecycle.record.telemetry import switch_off
    from lifecycle.run.stage import run_stage, user_errors

    switch_off()
    folder = Path(os.environ[JOB])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    inputs, outputs = ({key: Path(path) for key, path in job[name].items()} for name in ("inputs", "outputs"))
    with user_errors(job["stage"]), _told(folder):
        stage = load_stage(job["stage"], job["package"])
        if os.environ["RANK"] == "0":
            run_stage(stage, job["sections"], inputs, outputs, send=job["send"])
        else:
            _help(stage, job["sections"], inputs, folder)


def _help(stage: Stage[Any], sections: Mapping[str, Any], inputs: Mapping[str, Path], folder: Path) -> None:
    """Call the stage's function for what its ranks do together."""
    from lifecycle.declare.params import read_stage_params
    from lifecycle.run.stage import arguments_of

    while not (folder / "scratch").exists():  # torchrun ends this process if rank 0 fails before
        time.sleep(0.05)
    scratch = Path((folder / "scratch").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="canvas-rank-") as aside:
        outputs = {}
        for argument, artifact in stage.outputs.items():
            outputs[argument] = Path(aside) / argument / Path(artifact.path).name
            outputs[argument].parent.mkdir()
        stage.function(**arguments_of(stage, read_stage_params(stage, sections), inputs, outputs, scratch, Silent()))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What goes wrong in the first rank that fails is left for `launch` to say."""
    try:
        yield
    except Exception as error:
        mine = folder / f"error.{os.environ['RANK']}"
        mine.write_text(" ".join(str(error).split()) or type(error).__name__, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(mine, folder / "error")
        if isinstance(error, ValueError | OSError):
            raise SystemExit(1) from None
        raise


def _threads(processes: int) -> str:
    """Of each process, so that together they have the machine's cores once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return str(max(1, cores // processes))


def _spread(settings: Any) -> bool:
    """Whether any of the values has `parallel` other than none."""
    if not isinstance(settings, Mapping):
        return False
    return settings.get("parallel", "none") != "none" or any(map(_spread, settings.values()))


if __name__ == "__main__":
    main()
