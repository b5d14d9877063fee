"""`ratings pull` never takes away what people said: real stores, a real DVC repository, no server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from canvas.pins import tables
from lifecycle.workspace.digest import digest, read_pin
from tests.lifecycle.conftest import ROOT, Project
from tests.lifecycle.rating import write_rating_packet

JUDGMENTS = 20


def write_ratings(root: Path, count: int = JUDGMENTS) -> None:
    """Judgments of an earlier packet."""
    shutil.rmtree(root / "ratings", ignore_errors=True)
    rows: list[dict[str, Any]] = [
        dict.fromkeys(tables.JUDGMENTS.names)
        | {"judgment_id": f"j{number:02}", "item_id": "old", "rater": f"r{number:02}", "question": "preference"}
        | {"source": "human", "kind": "pairwise", "value": 1.0, "attention": False}
        for number in range(count)
    ]
    tables.write_rows(root / "ratings", rows, tables.JUDGMENTS)


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Project:
    """A repository with a packet that nobody has answered, and 20 judgments, pinned."""
    made = Project(tmp_path / "project")
    (made.root / ".mlflow").mkdir(parents=True)
    shutil.copyfile(empty_store, made.root / ".mlflow" / "mlflow.db")
    write_rating_packet(made.root)
    write_ratings(made.root)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "add", "-q", "ratings")):
        done = made.run(*command)
        assert done.returncode == 0, done.stderr
    return made


ANSWER = """
import sys
from pathlib import Path
from lifecycle.ratings.packet import read_packet
from lifecycle.ratings.reviews import Reviews
reviews = Reviews.open("sqlite:///.mlflow/mlflow.db", read_packet(Path("artifacts/packet")))
pages = reviews.load(sys.argv[1], "http://127.0.0.1:9")
import mlflow
(question,) = {question.text for question in reviews.packet.questions}
trace = next(reviews._list_traces(pages.experiment))
mlflow.log_feedback(trace_id=trace.info.trace_id, name=question, value="A")
"""


def answer(project: Project, rater: str) -> None:
    """A rater answers the packet's first item and does not submit it, which is a judgment all the same."""
    done = project.run("python", "-c", ANSWER, rater, MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false")
    assert done.returncode == 0, done.stderr


def pull(project: Project) -> subprocess.CompletedProcess[str]:
    return project.lifecycle("ratings", "pull")


def count_rows(project: Project) -> int:
    return int(tables.read(project.root / "ratings").num_rows)


def test_where_nobody_rated_nothing_is_written(project: Project) -> None:
    pin = project.read("ratings.dvc")
    done = pull(project)
    assert done.returncode == 1
    assert "nobody has answered the packet" in done.stderr
    assert "ratings/ stays as it is" in done.stderr
    assert (count_rows(project), project.read("ratings.dvc")) == (JUDGMENTS, pin)


def test_what_is_pinned_is_brought_back_first(project: Project) -> None:
    answer(project, "anna")
    shutil.rmtree(project.root / "ratings")
    done = pull(project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ratings/ holds {JUDGMENTS + 1} judgments, 1 of this packet;")
    assert count_rows(project) == JUDGMENTS + 1
    assert read_pin("ratings", project.root) == digest(project.root / "ratings")


def test_a_fresh_clone_without_the_judgments_refuses(project: Project) -> None:
    answer(project, "anna")
    shutil.rmtree(project.root / "ratings")
    shutil.rmtree(project.root / ".dvc" / "cache")
    pin = project.read("ratings.dvc")
    done = pull(project)
    assert done.returncode == 1
    assert "ratings/ is missing and DVC does not have it here" in done.stderr
    assert not (project.root / "ratings").exists()
    assert project.read("ratings.dvc") == pin
    assert "ratings/ is missing: `dvc pull ratings.dvc`" in restore_inputs(project)


def restore_inputs(project: Project) -> str:
    """What `python -m lifecycle inputs` says of the ratings in a project of the demo's stages."""
    for pin in ("champion.dvc", "preferences.dvc"):
        shutil.copy(ROOT / pin, project.root)
    return project.lifecycle("inputs").stdout


def test_a_pin_from_somebody_else_is_not_overwritten(project: Project) -> None:
    """`git pull` brought another ratings.dvc; ratings/ is still the older one."""
    answer(project, "anna")
    write_ratings(project.root, JUDGMENTS - 5)
    pin = project.read("ratings.dvc")
    done = pull(project)
    assert done.returncode == 1
    assert "ratings/ is not what ratings.dvc pins" in done.stderr
    assert (count_rows(project), project.read("ratings.dvc")) == (JUDGMENTS - 5, pin)


def test_answers_that_the_server_lost_stay(project: Project, empty_store: Path) -> None:
    answer(project, "anna")
    assert pull(project).returncode == 0
    shutil.copyfile(empty_store, project.root / ".mlflow" / "mlflow.db")
    answer(project, "ben")
    done = pull(project)
    assert done.returncode == 0, done.stderr
    assert f"{JUDGMENTS + 2} judgments, 1 of this packet; 1 more of it were pulled before" in done.stdout
