"""dvc.yaml works as DVC's users know it."""

from __future__ import annotations

import json

import pytest

from tests.graph.conftest import Project


def test_stage_entry(toy: Project) -> None:
    document = toy.dvc()
    assert document["stages"]["square"] == {
        "cmd": "python -m lifecycle run square",
        "desc": "Square the first numbers of the file.",
        "deps": [
            "data",
            "artifacts/code/square",
        ],
        "params": ["shared", "square"],
        "outs": [
            "artifacts/squares",
            "reports/square",
        ],
    }
    assert document["stages"]["code"]["deps"] == ["canvas", "components"]
    assert document["stages"]["mean"]["outs"] == ["models/mean"]
    assert document["stages"]["mean"]["metrics"] == [{"reports/metrics.json": {"cache": False}}]
    curve = {"x": "n", "y": ["square", "cube"], "template": "linear", "title": "n, its square and its cube"}
    assert document["plots"] == [{"reports/square/curve.csv": curve}, {"reports/square/sheet.png": None}]
    assert toy.read("dvc.yaml").startswith("# Written by `make graph`")


def test_dvc_runs_experiments_and_shows_metrics_and_plots(repository: Project) -> None:
    run = repository.ok("dvc", "repro")
    assert "Running stage 'square'" in run
    assert "Running stage 'mean'" in run
    assert "Data and pipelines are up to date" in repository.ok("dvc", "repro")
    repository.ok("git", "add", "--all")
    repository.ok("git", "commit", "--quiet", "--message", "run")

    experiment = repository.ok("dvc", "exp", "run", "--set-param", "mean.rounding.digits=1", "--name", "coarse")
    assert "Stage 'square' didn't change, skipping" in experiment
    assert "Ran experiment(s): coarse" in experiment
    assert "first: 6        # of the file" in repository.read("params.yaml"), "comments survive"
    changes = json.loads(repository.ok("dvc", "metrics", "diff", "--json"))
    assert changes.keys() == {"reports/metrics.json"}, "details are no columns"
    assert changes["reports/metrics.json"]["mean"] == {"old": 15.17, "new": 15.2, "diff": pytest.approx(0.03)}
    params = json.loads(repository.ok("dvc", "params", "diff", "--json"))
    assert params["params.yaml"]["mean.rounding.digits"] == {"old": 2, "new": 1, "diff": -1}

    plots = json.loads(repository.ok("dvc", "plots", "show", "--json"))
    assert "errors" not in plots
    curve, sheet = plots["data"]["reports/square/curve.csv"][0], plots["data"]["reports/square/sheet.png"][0]
    drawn = curve["content"]["data"]["values"]
    assert {point["field"] for point in drawn} == {"square", "cube"}
    assert curve["content"]["encoding"]["x"]["field"] == "n"
    assert sheet["type"] == "image"
    assert "square" in repository.ok("dvc", "dag", "--mermaid")
