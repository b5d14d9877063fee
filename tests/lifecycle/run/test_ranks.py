"""A stage as two ranks under torchrun: one run, one record, whole outs, and one sentence for what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from lifecycle.declare.graph import load_stages
from lifecycle.record.journal import read_events
from tests.lifecycle.conftest import NOBODY, Project
from tests.lifecycle.run.test_stage import wait_for

STAGE = '''
import os
import time
from dataclasses import dataclass

from components.artifacts import Numbers
from lifecycle.declare.stage import Input, Metrics, Output, Scratch, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    parallel: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    fails: int
    loop: Loop


@stage(machine="gpus")
def shared(
    shared: Shared, numbers: Input[Numbers], metrics: Output[Metrics], log: StepLog, scratch: Scratch
) -> None:
    """Sum the ranks."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank == shared.fails:
        raise ValueError(f"rank {rank} of {size} has no numbers")
    if shared.fails >= 0:
        time.sleep(60)  # until torchrun ends it
    total = rank + 1
    if size > 1:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        ranks = torch.tensor(total)
        dist.all_reduce(ranks)
        total = int(ranks)
    (scratch.path / f"rank-{rank}").touch()
    log.metrics({"loss": 1.0}, 7)
    threads = os.environ.get("OMP_NUM_THREADS", 0)
    metrics.path.write_text(f'{{"total": {total}, "ranks": {size}, "threads": {threads}}}')
    if size > 1:
        dist.destroy_process_group()
'''


@pytest.fixture
def shared(bare_project: Project) -> Project:
    root = bare_project.root
    (root / "components" / "shared.py").write_text(STAGE)
    (root / "components" / "train.py").unlink()
    (root / "components" / "score.py").unlink()
    with (root / "params.yaml").open("a") as file:
        file.write("shared:\n  fails: -1\n  loop:\n    parallel: ddp\n")
    numbers = root / "artifacts" / "numbers"
    numbers.mkdir(parents=True)
    (numbers / "1").write_text("1")
    return bare_project


def recorded(project: Project) -> list[list[dict[str, object]]]:
    return [[event for event, _ in read_events(folder)] for folder in project.records()]


def test_two_ranks_are_one_run(shared: Project) -> None:
    done = shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2", OMP_NUM_THREADS=None)
    assert done.returncode == 0, done.stderr
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert json.loads(shared.read("reports/shared/metrics.json")) == {"total": 3, "ranks": 2, "threads": threads}
    (record,) = recorded(shared)
    assert [event["step"] for event in record if event["event"] == "metrics"] == [7, 7]  # rank 0's, and the file's
    assert record[-1]["status"] == "FINISHED"
    assert list((shared.root / ".work" / "shared").iterdir()) == []


@pytest.mark.parametrize("ranks", [None, "1"])
def test_one_is_a_run_as_ever(shared: Project, ranks: str | None) -> None:
    done = shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS=ranks)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(shared.read("reports/shared/metrics.json"))
    assert (metrics["total"], metrics["ranks"]) == (1, 1)


def test_threads_that_are_asked_for_are_obeyed(shared: Project) -> None:
    done = shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2", OMP_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert json.loads(shared.read("reports/shared/metrics.json"))["threads"] == 3


def test_params_that_do_not_spread_the_training_are_obeyed(shared: Project) -> None:
    shared.edit("params.yaml", "parallel: ddp", "parallel: none")
    assert shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2").returncode == 0
    assert json.loads(shared.read("reports/shared/metrics.json"))["ranks"] == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_rank_says_is_the_last_line_and_no_out_is_left(shared: Project, rank: int) -> None:
    shared.edit("params.yaml", "fails: -1", f"fails: {rank}")
    done = shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"stage shared: rank {rank} of 2 has no numbers"
    assert not (shared.root / "reports" / "shared" / "metrics.json").exists()
    (record,) = recorded(shared)
    assert record[-1]["status"] == ("FAILED" if rank == 0 else "KILLED")


def test_no_rank_outlives_a_killed_stage(shared: Project) -> None:
    """Rank 1 fails when it is told to; both would wait a minute, then finish and replace the out."""
    shared.edit("components/shared.py", "    total = rank", "    time.sleep(30)\n    total = rank")
    command = [sys.executable, "-m", "lifecycle", "run", "shared"]
    environment = shared.environment(MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2")
    with subprocess.Popen(command, cwd=shared.root, env=environment) as stage:

        def ranks() -> list[psutil.Process]:
            family = psutil.Process(stage.pid).children(recursive=True)
            return [member for member in family if read_command(member)[-1:] == ["lifecycle.run.ranks"]]

        wait_for(lambda: len(ranks()) >= 3 and len(list(shared.root.glob(".work/shared/*/outs"))) == 1, 60)
        family = psutil.Process(stage.pid).children(recursive=True)
        stage.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert not (shared.root / "reports" / "shared" / "metrics.json").exists()
    (record,) = recorded(shared)
    assert "end" not in [event["event"] for event in record] or record[-1]["status"] == "KILLED"
    shared.edit("components/shared.py", "time.sleep(30)", "pass")
    assert shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="2").returncode == 0


def test_a_number_of_ranks_that_is_none_is_refused(shared: Project) -> None:
    done = shared.lifecycle("run", "shared", MLFLOW_TRACKING_URI=NOBODY, CANVAS_RANKS="all")
    assert done.returncode == 1
    assert "CANVAS_RANKS is 'all': it must be a number of processes, 1 or more" in done.stderr


def test_stages_on_all_gpus_of_a_node_run_as_so_many_ranks() -> None:
    manifest = Path(__file__).parents[3] / "pipelines" / "compiled" / "train.yaml"
    pipeline = next(YAML(typ="safe", pure=True).load_all(manifest))
    environments = {
        name.removeprefix("exec-").replace("-", "_"): executor["container"].get("env")
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    for stage in load_stages():
        if stage.pipeline == "train":
            wanted = [{"name": "CANVAS_RANKS", "value": "8"}] if stage.machine == "gpus" else None
            assert environments[stage.name] == wanted


def read_command(process: psutil.Process) -> list[str]:
    """Return the words of its command; none where it has ended, as short-lived helpers of torch's do at any time."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
