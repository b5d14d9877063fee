"""The compiled promote pipeline runs here on what the train pipeline left, and moves the champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.components.judged import empty
from tests.evaluation.test_gates import make_judgments
from tests.graph.conftest import ROOT, Project
from tests.lifecycle.registering import open_registry


def test_promote_runs_as_kubeflow_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    for package in ("canvas", "components", "evaluation", "lifecycle"):
        (tmp_path / package).symlink_to(ROOT / package)
    for name in ("pipelines", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    judged = empty(tmp_path)
    model = judged.train("first")
    judged.evaluate(model, 0.0)
    judged.run("gate", "review", "register")
    judged.rate(make_judgments(model, None, 0.9))

    done = Project(tmp_path).pipelines("local", "--pipeline", "promote", "--profile", "tiny", MLFLOW_TRACKING_URI="")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("Everything lies in "))
    promotion = json.loads((folder / "promote" / "promoted").read_text())
    assert promotion["outcome"] == "pass"
    assert promotion["move"]["after"] == "1"
    client = open_registry(tmp_path).versions.client
    assert client.get_model_version_by_alias("canvas-background", "champion").version == 1
