"""The compiled pipeline really runs here, one process a task."""

from __future__ import annotations

import json
from pathlib import Path

from tests.graph.conftest import Project
from tests.graph.test_project import NEW_STAGE


def test_compiled_pipeline_runs_and_does_what_dvc_does(toy: Project) -> None:
    done = toy.pipelines("local", "--profile", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("Everything lies in "))
    assert folder.parent == toy.root / ".work" / "kfp_local"
    for line in ("square reports/square/metrics.json 2 numbers", "mean models/mean 8 bytes"):
        assert any(all(word in printed for word in line.split()) for printed in done.stdout.splitlines()), line
    # 1, 4 and 9: three numbers of the tiny profile; an int stays an int on its way through Kubeflow.
    assert (folder / "mean" / "model" / "mean.txt").read_text() == "4.67 int"
    output = json.loads((folder / "square" / "executor_output.json").read_text())
    assert output["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"count": 3.0, "sum.squares": 14.0001}

    toy.write(
        "params.yaml", toy.read("params.yaml").replace("first: 6", "first: 3").replace("label: demo", "label: tiny")
    )
    toy.ok("python", "-m", "lifecycle", "run", "square")  # as dvc.yaml's cmd does
    assert toy.read("artifacts/squares/squares.txt") == (folder / "square" / "squares" / "squares.txt").read_text()
    assert toy.read("reports/square/report.html") == (folder / "square" / "report").read_text()


def test_promote_reads_what_train_made(toy: Project) -> None:
    toy.write("components/double.py", NEW_STAGE.format(pipeline="promote"))
    toy.pipelines("graph")
    missing = toy.pipelines("local", "--pipeline", "promote")
    assert missing.returncode == 1
    assert missing.stderr == (
        "pipelines local: models/mean is missing: run the train pipeline (or `dvc repro models/mean`) first\n"
    )
    trained = toy.pipelines("local")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    done = toy.pipelines("local", "--pipeline", "promote")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("Everything lies in "))
    assert folder.name.startswith("canvas-promote-")
    assert (folder / "double" / "doubled").read_text() == '{"doubled": 2}'
    assert (folder.parent / Path(trained.stdout.splitlines()[-1].removeprefix("Everything lies in ")).name).is_dir()


def test_a_failing_task_is_named_and_its_own_sentence_is_seen(toy: Project) -> None:
    toy.write("data/numbers.txt", "one\n")
    done = toy.pipelines("local")
    assert done.returncode == 1
    assert "stage square: invalid literal for int() with base 10: 'one'" in done.stdout
    assert done.stderr.splitlines()[-1].endswith("finished with status FAILURE. Inner task failed: 'square'.")
    assert "Traceback" not in done.stderr


def test_missing_data_and_drift_stop_before_anything_runs(toy: Project) -> None:
    toy.write("dvc.yaml", "stages: {}\n")
    assert "dvc.yaml no longer fits the stages: run `make graph` first" in toy.pipelines("local").stderr
    toy.pipelines("graph")
    (toy.root / "data").rename(toy.root / "elsewhere")
    done = toy.pipelines("local")
    assert done.returncode == 1
    assert done.stderr == "pipelines local: data is missing: run `make data` (or `dvc pull data`) first\n"
    assert not (toy.root / ".work").exists()
