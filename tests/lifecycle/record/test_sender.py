"""The process that sends records: tracking that is off, comes back, and stages that were killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import TrackingDownError
from tests.lifecycle.conftest import NOBODY, Project
from tests.lifecycle.run.test_stage import wait_for


def test_a_run_is_recorded_while_it_works(project: Project) -> None:
    """The whole way: a stage, its sender's process, the store; and `records` has nothing left to do."""
    assert project.lifecycle("run", "fetch", CANVAS_RUN="nightly").returncode == 0
    done = project.lifecycle("run", "train", CANVAS_RUN="nightly")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    client = project.client()
    experiment = client.get_experiment_by_name("canvas")
    assert experiment is not None
    by_name = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert by_name.keys() == {"nightly", "fetch", "train"}
    run = by_name["train"]
    assert run.data.params["train.optimizer.learning_rate"] == "0.001"
    assert run.data.metrics["total"] == 12
    assert run.data.metrics["first.step"] == 0
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]
    assert run.data.metrics["stage.peak_memory_mb"] > 5
    assert run.data.tags["mlflow.parentRunId"] == by_name["nightly"].info.run_id
    artifacts = [file.path for file in client.list_artifacts(run.info.run_id, "reports/train")]
    assert artifacts == ["reports/train/losses.csv", "reports/train/metrics.json"]
    assert project.records() == []


def test_what_tracking_missed_is_sent_later_and_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    down = "http://me:secret@127.0.0.1:9"
    since = time.monotonic()
    done = project.lifecycle("run", "fetch", MLFLOW_TRACKING_URI=down)
    assert time.monotonic() - since < 10
    assert done.returncode == 0
    assert project.read("artifacts/numbers/3") == "6"
    assert len(done.stderr.splitlines()) == 1
    assert "tracking at http://127.0.0.1:9 does not answer" in done.stderr
    assert "secret" not in done.stderr

    project.edit("params.yaml", "seconds_a_step: 0.0", "seconds_a_step: 30.0")
    command = [sys.executable, "-m", "lifecycle", "run", "train"]
    with subprocess.Popen(command, cwd=project.root, env=project.environment(MLFLOW_TRACKING_URI=NOBODY)) as killed:
        wait_for(lambda: any("loss" in file.read_text() for file in project.root.glob(".work/records/*/journal.jsonl")))
        killed.send_signal(signal.SIGKILL)

    project.edit("components/train.py", "numbers.path.iterdir()", "(numbers.path / '1').iterdir()")
    project.edit("params.yaml", "seconds_a_step: 30.0", "seconds_a_step: 0.0")
    assert project.lifecycle("run", "train", MLFLOW_TRACKING_URI=NOBODY).returncode == 1
    assert len(project.records()) == 3

    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    with pytest.raises(TrackingDownError, match=r"does not answer .*: 3 records stay in"):
        send_kept_records(project.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert send_kept_records(project.root) == (3, 0)
    assert send_kept_records(project.root) == (0, 0)
    client = project.client()
    experiment = client.get_experiment_by_name("canvas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        ("fetch", "FINISHED"),
        ("train", "KILLED"),
        ("train", "FAILED"),
    ]
    assert [len(client.get_metric_history(run.info.run_id, "loss")) for run in runs] == [0, 1, 3]
    failed = client.download_artifacts(runs[2].info.run_id, "traceback.txt", str(project.root))
    assert "NotADirectoryError" in Path(failed).read_text()


def test_a_server_that_never_answers(project: Project) -> None:
    """It takes the connection and then says nothing: the stage is done first, the record stays."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(silent.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        port = silent.getsockname()[1]
        done = project.lifecycle(
            "run",
            "fetch",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}",
            MLFLOW_HTTP_REQUEST_TIMEOUT="1",
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        )
        for connection in connections:
            connection.close()
    assert done.returncode == 0
    assert project.read("artifacts/numbers/3") == "6"
    assert "the record is kept" in done.stderr
    assert len(project.records()) == 1


def test_nothing_to_send(project: Project) -> None:
    done = project.lifecycle("records")
    assert (done.returncode, done.stdout) == (0, "0 sent, 0 still here\n")
