"""Lineage by content, through a real DVC repository and its cache."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from lifecycle.record.lineage import Node, format_lineage
from lifecycle.record.runs import ProducerRun
from lifecycle.workspace.digest import digest
from tests.lifecycle.conftest import NOBODY, Project


@pytest.fixture
def repository(project: Project) -> Project:
    for command in (
        ("git", "init", "-q"),
        ("git", "config", "user.email", "test@example.org"),
        ("git", "config", "user.name", "Test"),
        ("dvc", "init", "-q"),
        ("dvc", "add", "-q", "data"),
        ("git", "add", "."),
        ("git", "commit", "-q", "-m", "Start"),
    ):
        run_checked(project, *command)
    return project


def run_checked(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    done = project.run(*command)
    assert done.returncode == 0, done.stderr
    return done


def test_from_a_report_back_to_the_raw_data(repository: Project) -> None:
    run_checked(repository, "dvc", "repro", "-q")
    client = repository.client()
    experiment = client.get_experiment_by_name("canvas")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = next(run for name, run in runs.items() if name.startswith("dvc "))
    assert parent.info.status == "FINISHED"
    head = run_checked(repository, "git", "rev-parse", "HEAD").stdout.strip()
    for stage in ("fetch", "train", "score"):
        assert runs[stage].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[stage].data.tags["mlflow.source.git.commit"] == head
        assert runs[stage].data.tags["canvas.git.dirty"] == "false"
    assert len(client.get_run(runs["score"].info.run_id).inputs.model_inputs) == 1
    assert [file.path for file in client.list_artifacts(runs["score"].info.run_id, "samples/samples")] == [
        "samples/samples/first.png"
    ]

    def named(path: str, stage: str) -> str:
        return f"{path}  {digest(repository.root / path)}  {stage}  run {runs[stage].info.run_id}"

    raw = f"data  {digest(repository.root / 'data')}  raw data, pinned by data.dvc"
    expected = [
        named("reports/score/report.html", "score"),
        "├─ " + named("artifacts/numbers", "fetch"),
        "│  └─ " + raw,
        "└─ " + named("models/weights", "train"),
        "   └─ " + named("artifacts/numbers", "fetch") + "  (as above)",
    ]
    assert raw.split()[1] in repository.read("data.dvc")
    assert expected[0].split()[1] in repository.read("dvc.lock")

    for folder in ("artifacts", "models", "reports"):
        shutil.rmtree(repository.root / folder)
    run_checked(repository, "dvc", "repro", "-q")  # everything comes out of the cache: no new run
    assert len(client.search_runs([experiment.experiment_id])) == 4
    done = run_checked(repository, "python", "-m", "lifecycle", "lineage", "reports/score/report.html")
    assert done.stdout.splitlines() == expected

    shutil.rmtree(repository.root / "models")  # not even checked out: dvc.lock still names it
    inside = run_checked(repository, "python", "-m", "lifecycle", "lineage", "models/weights/model.safetensors")
    assert inside.stdout.splitlines()[0] == expected[3].removeprefix("└─ ")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("models/nonsense", "models/nonsense is no artifact of any stage: the artifacts are artifacts/numbers, data"),
        ("models/weights", "models/weights does not exist and dvc.lock does not name it: `dvc repro` makes it"),
    ],
)
def test_what_is_no_artifact(bare_project: Project, path: str, says: str) -> None:
    done = bare_project.lifecycle("lineage", path)
    assert done.returncode == 1
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1


def test_an_artifact_that_no_run_made(project: Project) -> None:
    (project.root / "models" / "weights").mkdir(parents=True)
    done = project.lifecycle("lineage", "models/weights")
    assert done.returncode == 1
    assert re.fullmatch(r"no run is recorded that wrote models/weights with digest \w{32}\.dir: .*\n", done.stderr)


def test_tracking_that_is_off(bare_project: Project) -> None:
    done = bare_project.lifecycle("lineage", "data", MLFLOW_TRACKING_URI=NOBODY)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tracking at {NOBODY} does not answer")


def test_a_gap_is_said_where_it_is() -> None:
    known = Node("artifacts/pins", "2", None, ())
    tree = Node("models/a", "1", ProducerRun("train", "r", {"artifacts/pins": "2"}), (known,))
    assert format_lineage(tree, ()) == ["models/a  1  train  run r", "└─ artifacts/pins  2  no run recorded"]
