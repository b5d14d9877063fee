"""What is recorded of a stage's run, and when."""

from __future__ import annotations

import getpass
import json
import math
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

from lifecycle.declare.params import flatten
from lifecycle.declare.skipping import SKIPPED, read_skip_reason
from lifecycle.declare.stage import Artifact, Dataset, Headline, Metrics, Model, Paths, Plot, Report, Sheet, Site, Stage
from lifecycle.record.journal import Journal, Status
from lifecycle.record.origin import find_group, find_project, read_release, read_revision
from lifecycle.terminal import print_plain
from lifecycle.workspace.digest import digest

NOTES = "notes"
"""Key of a stage's notes in its metrics."""

FINISH_SECONDS = 120.0  # how long a stage waits at its end for its record to be sent; the next run sends the rest


@contextmanager
def record_run(
    stage: Stage[Any], settings: Mapping[str, Any], inputs: Paths, digests: Mapping[str, str], send: bool
) -> Iterator[Journal]:
    """Give the journal of a run that begins now and ends with the `with` block, by its outcome.

    An exception is recorded with its traceback and goes on. Without `send` the record stays on disk.
    """
    project = find_project(Path.cwd())
    journal = Journal(project)
    start = time.monotonic()
    _record_start(journal, stage, settings, inputs, digests)
    sender = _start_sender(project, journal.folder) if send else None
    status: Status = "KILLED"
    try:
        yield journal
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        journal.text("traceback.txt", traceback.format_exc())
        raise
    finally:
        costs = {"stage.duration_s": time.monotonic() - start, "stage.peak_memory_mb": measure_peak_memory_mb()}
        journal.event("end", status=status, metrics=costs)
        journal.close()
        if sender:
            _finish_sender(sender)


def record_outputs(journal: Journal, stage: Stage[Any], outputs: Paths) -> dict[str, str]:
    """Record the outs, which are in place: digests, the numbers of Metrics, copies of what people look at. Return the
    digests by argument."""
    records: list[dict[str, str]] = []
    reason: str | None = None
    notes: list[str] = []
    for argument, artifact in stage.outputs.items():
        path = outputs[argument]
        records.append({**_describe_artifact(argument, artifact), "digest": digest(path)})
        if issubclass(artifact, Metrics):
            journal.metrics(read_metrics(path), journal.last_step)
            reason = read_skip_reason(path) or reason
            notes += read_notes(path)
        if issubclass(artifact, Headline):
            journal.event("headline", values=read_metrics(path))
        if issubclass(artifact, Metrics | Report | Plot | Sheet):
            journal.keep(path, artifact.path)
        if issubclass(artifact, Site):
            for file in sorted(filter(Path.is_file, path.rglob("*"))):
                journal.keep(file, f"{artifact.path}/{file.relative_to(path).as_posix()}")
    journal.event("outputs", outputs=records, skipped=reason, notes=notes)
    return {record["argument"]: record["digest"] for record in records}


def read_metrics(path: Path) -> dict[str, float]:
    """Return the leaves of a Metrics file as `section.key` -> number, without a reason to skip and notes; `ValueError`
    naming what is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} must be a JSON object of numbers, not {type(values).__name__}")
    leaves = flatten(values)
    if isinstance(leaves.get(SKIPPED), str):
        del leaves[SKIPPED]
    if _is_notes(leaves.get(NOTES)):
        del leaves[NOTES]
    for key, value in leaves.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path.name}: {key} is {value!r}; write a finite number or leave it out")
    return {key: float(value) for key, value in leaves.items()}


def read_notes(path: Path) -> list[str]:
    """Return the sentences in a Metrics file about what its stage did otherwise than its params say."""
    notes = json.loads(path.read_text(encoding="utf-8")).get(NOTES)
    return notes if _is_notes(notes) else []


def _is_notes(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(sentence, str) for sentence in value)


def _record_start(
    journal: Journal, stage: Stage[Any], settings: Mapping[str, Any], inputs: Paths, digests: Mapping[str, str]
) -> None:
    reads = [
        {**_describe_artifact(argument, artifact), "uri": str(inputs[argument]), "digest": digests[argument]}
        for argument, artifact in stage.inputs.items()
    ]
    tags = {
        "canvas.stage": stage.name,
        "mlflow.source.name": stage.module.replace(".", "/") + ".py",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": stage.summary,
        **{f"digest.in.{read['path']}": read["digest"] for read in reads},
    }
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if code := read_revision(Path.cwd()):
        tags |= {"mlflow.source.git.commit": code.sha, "canvas.git.dirty": str(code.dirty).lower()}
    if version := read_release(Path.cwd()):
        tags["canvas.release"] = version
    group = asdict(larger) if (larger := find_group()) else None
    journal.event("start", stage=stage.name, tags=tags, params=flatten(settings), inputs=reads, group=group)


def _describe_artifact(argument: str, artifact: type[Artifact]) -> dict[str, str]:
    kinds = (Dataset, Model, Metrics, Report, Site, Plot, Sheet, Artifact)
    kind = next(kind for kind in kinds if issubclass(artifact, kind))
    return {"argument": argument, "path": artifact.path, "kind": kind.__name__}


def measure_peak_memory_mb() -> float:
    """Return the largest resident memory so far of this process, or of one of its ended children, in MB.

    On Linux from VmHWM, because ru_maxrss begins with that of the process that started this one.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, or kilobytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return max(peak, children) / 1e6


def _start_sender(project: Path, record: Path) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-m", "lifecycle.record.sender", str(project), str(record)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C stops the stage; its record is still sent
        )
    except OSError as error:  # no memory for one more process: the next run sends the record
        print_plain(f"the run's record is kept in {record} ({error})", file=sys.stderr)
        return None


def _finish_sender(sender: subprocess.Popen[bytes]) -> None:
    try:
        sender.communicate(b"end\n", FINISH_SECONDS)  # if it is gone, the record is on disk
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
        print_plain("tracking is slow: the rest of the record is kept and the next run sends it", file=sys.stderr)
