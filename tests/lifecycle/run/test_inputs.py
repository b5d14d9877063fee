"""Inputs that are not what was written are refused before anything learns from them, in a real DVC repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifecycle.conftest import NOBODY, ODD, Project

CHECK = """
from components.artifacts import Checked, TrainMetrics
from lifecycle.declare.stage import Input, Output, stage

@stage()
def check(metrics: Input[TrainMetrics], checked: Output[Checked]) -> None:
    \"\"\"Copy the metrics.\"\"\"
    checked.path.mkdir()
    (checked.path / "copy").write_bytes(metrics.path.read_bytes())
"""

ARTIFACTS = """
from lifecycle.declare.stage import Metrics


class TrainMetrics(Metrics, path="reports/train/metrics.json"):
    \"\"\"What `check` reads.\"\"\"


class Checked(Dataset, path="artifacts/checked"):
    \"\"\"A copy of it.\"\"\"
"""


@pytest.fixture
def repository(bare_project: Project) -> Project:
    """The project after `dvc repro`, in a folder with an odd name: numbers, weights and score are in dvc.lock and in
    DVC's cache."""
    bare_project = Project(bare_project.root.rename(bare_project.root.with_name(ODD)))
    for command in (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "add", "-q", "data")):
        done = bare_project.run(*command)
        assert done.returncode == 0, done.stderr
    repro(bare_project)
    return bare_project


def repro(project: Project, *arguments: str) -> None:
    done = project.run("dvc", "repro", "-q", *arguments, MLFLOW_TRACKING_URI=NOBODY)
    assert done.returncode == 0, done.stderr


def run(project: Project, stage: str) -> str:
    """What a stage run by hand complains of, "" if it does not."""
    done = project.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)
    lines = [line for line in done.stderr.splitlines() if line.startswith("stage ")]
    assert bool(lines) == bool(done.returncode), done.stderr
    return lines[0] if lines else ""


def flip(file: Path) -> None:
    """Another byte, the same size."""
    file.chmod(0o644)
    file.write_bytes(b"9" + file.read_bytes()[1:])


def test_a_flipped_byte_is_named(repository: Project) -> None:
    flip(repository.root / "artifacts/numbers/2")
    complaint = run(repository, "train")
    assert "input artifacts/numbers is not what was written" in complaint
    assert "artifacts/numbers/2 has changed; `dvc repro --force fetch` makes it again" in complaint
    flip(repository.root / "models/weights/model.safetensors")
    (repository.root / "artifacts/numbers/2").write_text("4")
    assert "models/weights/model.safetensors has changed" in run(repository, "score")


def test_a_flipped_object_of_the_cache_is_named(repository: Project) -> None:
    """DVC checks it out without a look."""
    (cached,) = (
        file
        for file in (repository.root / ".dvc/cache/files/md5").rglob("*")
        if file.is_file() and file.read_bytes() == b"4"
    )
    flip(cached)
    for folder in ("artifacts/numbers", "models/weights"):
        for file in (repository.root / folder).iterdir():
            file.unlink()
    assert repository.run("dvc", "checkout", "--force", "artifacts/numbers").returncode == 0
    assert "artifacts/numbers/2 has changed" in run(repository, "train")


def test_what_was_run_by_hand_is_known(repository: Project) -> None:
    """dvc.lock does not have it, but a stage of this project wrote it."""
    repository.edit("params.yaml", "times: 2", "times: 5")
    assert run(repository, "fetch") == run(repository, "train") == run(repository, "score") == ""
    repository.edit("params.yaml", "times: 5", "times: 2")
    repro(repository)
    (repository.root / ".work/written.json").write_bytes(b"\0\0")  # torn: dvc.lock says the same
    assert run(repository, "score") == ""


def test_pinned_data_may_change_before_it_is_pinned(repository: Project) -> None:
    (repository.root / "data/numbers.txt").write_text("7 8")
    assert run(repository, "fetch") == ""
    repro(repository)
    assert repository.read("models/weights/model.safetensors") == "30"


def test_a_report_that_another_stage_reads_is_known_by_its_folder(repository: Project) -> None:
    (repository.root / "components/check.py").write_text(CHECK)
    with (repository.root / "components/artifacts.py").open("a") as file:
        file.write(ARTIFACTS)
    repository.edit("components/train.py", "import Numbers,", "import Numbers, TrainMetrics,")
    repository.edit("components/train.py", "Output[Metrics]", "Output[TrainMetrics]")
    repository.edit("dvc.yaml", "reports/train/losses.csv]\n    metrics:\n", "reports/train]\n")
    repository.edit("dvc.yaml", "      - reports/train/metrics.json: {cache: false}\n", "")
    repro(repository)
    (repository.root / ".work/written.json").unlink()
    report = repository.root / "reports/train/metrics.json"
    assert run(repository, "check") == ""
    whole = report.read_bytes()
    flip(report)
    complaint = run(repository, "check")
    assert "input reports/train/metrics.json is not what was written" in complaint
    assert "`dvc repro --force train` makes it again" in complaint
    report.write_bytes(whole)
    repository.edit("params.yaml", "times: 2", "times: 5")
    assert run(repository, "fetch") == run(repository, "train") == run(repository, "check") == ""


def test_files_that_dvc_ignores_may_lie_in_pinned_data(repository: Project) -> None:
    (repository.root / ".dvcignore").write_text("*.db\n")
    (repository.root / "data/Thumbs.db").write_bytes(b"small images")
    repro(repository, "--force", "fetch")
