"""Is anything lost when a stage is killed? `python -m bench.graph.kills`, or `make kills`.

    python -m bench.graph.kills          # 100 kills
    python -m bench.graph.kills 20 7     # so many, of this seed

The graph of profile tiny runs once unbroken. Then its stages, in turn, run again in folders of their own and are killed
by SIGKILL at a random moment: one in two at a file operation, the others at a share of the stage's time. At that moment
each output must be whole or absent; the same run again must end, with the bytes of the unbroken one. One kill in ten is
of the process that sends the records of all these runs to MLflow: in the end the store must have each run once.

Processes are forked from one that has imported what stages import, so that a kill hits the stage and not its start.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.graph.project import digest_files, get_paths, list_stages, run_here, write_project
from bench.measurement import ROOT
from lifecycle.declare.stage import Stage
from lifecycle.record.journal import DAMAGED, find_records, list_kept_records, read_events
from lifecycle.record.sender import send_kept_records
from lifecycle.workspace.staging import WORK

KILLS, SEED = 100, 0
SENDER_SHARE = 10  # one kill in so many is of the sender
FILE_OPERATIONS = ("open", "os.", "shutil.", "fcntl.", "sqlite3.")
STORE = Path(".mlflow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What a whole run takes."""

    seconds: float
    operations: int
    result: Any = None  # what it returned, as JSON has it


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When to kill: at a share of the run's file operations, or of its seconds."""

    share: float
    by_operations: bool


def run_forked(root: Path, act: Callable[[], object], moment: Moment | None, effort: Effort | None) -> Effort | None:
    """Run `act` in a process of its own, in the folder `root`, to its end or to `moment` of its `effort`.

    Returns:
        What it took, or None if it was killed.

    Raises:
        RuntimeError: It failed.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        _act_and_exit(root, act, writing, moment if effort else None, effort)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        printed = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if status:
        raise RuntimeError(printed.decode() or f"status {status}")
    answer = json.loads(printed)
    for name in answer.pop("modules"):
        with suppress(Exception):  # some can only be imported by others
            import_module(name)
    return Effort(**answer)


def _act_and_exit(
    root: Path, act: Callable[[], object], writing: int, moment: Moment | None, effort: Effort | None
) -> None:
    operations, before, clock = 0, set(sys.modules), time.perf_counter()
    last = max(1, int(moment.share * effort.operations)) if moment and effort and moment.by_operations else -1

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal operations
        if event.startswith(FILE_OPERATIONS):
            operations += 1
            if operations == last:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        os.chdir(root)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        if moment and effort and not moment.by_operations:
            _kill_after(moment.share * effort.seconds)
        sys.addaudithook(count)
        result = act()
        seconds = time.perf_counter() - clock
        answer = {"seconds": seconds, "operations": operations, "result": result}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer | {"modules": sorted(set(sys.modules) - before)}, pipe)
        os._exit(0)
    except BaseException as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)


def _kill_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, kw_only=True, slots=True)
class UnbrokenRun:
    """A whole run of the graph: its folder, and of each stage by name what it took and its outputs' digests."""

    root: Path
    efforts: dict[str, Effort]
    digests: dict[str, dict[str, str]]

    @classmethod
    def make(cls, root: Path, stages: list[Stage[Any]]) -> UnbrokenRun:
        write_project(root)
        efforts: dict[str, Effort] = {}
        digests: dict[str, dict[str, str]] = {}
        for stage in stages:
            if stage.registry:  # lineage needs all records; what is in the store by now, a killed run finds there
                run_forked(root, partial(send_kept_records, root, need_all=True), None, None)
                shutil.copytree(root / STORE, root / f"{STORE}-{stage.name}")
            effort = run_forked(root, partial(run_here, stage), None, None)
            assert effort is not None
            efforts[stage.name] = effort
            digests[stage.name] = digest_files(_locate_outputs(stage, root))
            print(f"{stage.name}: {effort.seconds:.1f} s, {effort.operations} file operations", flush=True)
        return cls(root=root, efforts=efforts, digests=digests)

    def prepare(self, stage: Stage[Any], root: Path) -> None:
        """Fill the new folder with what the stage reads, as links."""
        write_project(root)
        for path in get_paths(stage)[0].values():
            if not (root / path).exists():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).symlink_to(self.root / path)
        (root / WORK).mkdir()
        shutil.copyfile(self.root / WORK / "written.json", root / WORK / "written.json")
        if stage.registry:
            shutil.copytree(self.root / f"{STORE}-{stage.name}", root / STORE)


def try_stage(stage: Stage[Any], unbroken: UnbrokenRun, root: Path, moment: Moment) -> tuple[float, list[str]]:
    """Kill the stage in the new folder `root`, and run it again.

    Returns:
        The share of the run that was over, and what was lost, in words.
    """
    unbroken.prepare(stage, root)
    expected = {str(root / Path(file).relative_to(unbroken.root)): content for file, content in _flat(unbroken, stage)}
    outputs = _locate_outputs(stage, root)
    while run := run_forked(root, partial(run_here, stage), moment, unbroken.efforts[stage.name]):  # it was faster
        unbroken.efforts[stage.name] = run  # the first one imported what this one had
        moment = Moment(share=0.9 * moment.share, by_operations=moment.by_operations)
        for path in outputs.values():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    there = {argument: path for argument, path in outputs.items() if path.exists()}
    lost = [f"{file} after the kill" for file, content in digest_files(there).items() if expected.get(file) != content]
    try:
        run_forked(root, partial(run_here, stage), None, None)
    except RuntimeError as error:
        return moment.share, [*lost, f"{stage.name} cannot go on: {error}"]
    final = digest_files(outputs)
    lost += [file for file in sorted(final.keys() | expected.keys()) if final.get(file) != expected.get(file)]
    if left := [str(path) for path in (root / WORK / stage.name).glob("*/*")]:
        lost.append(f"left behind: {', '.join(left)}")
    return moment.share, lost


def _flat(unbroken: UnbrokenRun, stage: Stage[Any]) -> list[tuple[str, str]]:
    return list(unbroken.digests[stage.name].items())


def _locate_outputs(stage: Stage[Any], root: Path) -> dict[str, Path]:
    return {argument: root / path for argument, path in get_paths(stage)[1].items()}


def gather_records(source: Path, home: Path) -> dict[str, str]:
    """Move the records of the project `source` to that at `home`; return record -> how its run ended."""
    ends: dict[str, str] = {}
    find_records(home).mkdir(exist_ok=True)
    for record in list_kept_records(source):
        events = [event for event, _ in read_events(record)]
        if events:
            ends[record.name] = events[-1]["status"] if events[-1]["event"] == "end" else "KILLED"
        shutil.move(record, find_records(home) / record.name)
    return ends


def try_sender(home: Path, ends: dict[str, str], moments: list[Moment]) -> list[str]:
    """Send all records of `home`, killed at each of the moments and begun again; return what the store lacks."""
    effort = Effort(seconds=2.0, operations=600)  # of some records
    for moment in moments:
        run_forked(home, partial(send_kept_records, home), moment, effort)
    run_forked(home, partial(send_kept_records, home, need_all=True), None, None)
    lost = [f"damaged: {folder.name}" for folder in find_records(home).glob(f"{DAMAGED}/*") if folder.name in ends]
    lost += [f"not sent: {folder.name}" for folder in list_kept_records(home)]
    listed = run_forked(home, partial(_list_runs, home), None, None)
    runs = [tuple(run) for run in listed.result] if listed else []
    counts = Counter(record for record, _ in runs)
    lost += [f"{counts[record]} runs of {record}" for record in ends if counts[record] != 1]
    return lost + [f"{record} is {status}" for record, status in runs if ends.get(record) != status]


def _list_runs(home: Path) -> list[tuple[str, str]]:
    from lifecycle.record.tracking import open_tracking

    tracking = open_tracking(home)
    runs = tracking.client.search_runs([tracking.experiment], max_results=10_000)
    return [(run.data.tags["canvas.record"], run.info.status) for run in runs if "canvas.record" in run.data.tags]


def main(arguments: list[str]) -> int:
    """Print what each kill lost, and the sum; return 1 if anything was lost."""
    count, seed = ([int(argument) for argument in arguments] + [KILLS, SEED][len(arguments) :])[:2]
    os.environ |= {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(ROOT)}
    draw, clock, stages = random.Random(seed), time.perf_counter(), list_stages()
    moments = [Moment(share=draw.uniform(0.01, 0.99), by_operations=draw.random() < 0.5) for _ in range(count)]
    of_sender = moments[: count // SENDER_SHARE]
    losses: dict[str, list[str]] = {}
    ends: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        unbroken = UnbrokenRun.make(place / "unbroken", stages)
        home = place / "records"
        for number, moment in enumerate(moments[len(of_sender) :]):
            stage = stages[number % len(stages)]
            root = place / f"kill-{number}"
            share, lost = try_stage(stage, unbroken, root, moment)
            kind = "operations" if moment.by_operations else "time"
            print(f"{stage.name} at {share:.2f} of its {kind}: {'; '.join(lost) or 'nothing lost'}", flush=True)
            losses |= {f"{stage.name}, {number}": lost} if lost else {}
            ends |= gather_records(root, home)
            shutil.rmtree(root)
        if lost := try_sender(home, ends, of_sender):
            losses["sender"] = lost
        print(f"{len(of_sender)} kills of the sender of {len(ends)} records: {'; '.join(lost) or 'nothing lost'}")
    seconds = time.perf_counter() - clock
    print(f"{count} kills (seed {seed}) over {len(stages)} stages and the sender: {len(losses)} lost, {seconds:.0f} s")
    return int(bool(losses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
