"""A project that is moved or copied, in a real store: what it recorded is read and written where it is now."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lifecycle.commands import relocate
from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import open_tracking
from lifecycle.workspace.digest import digest
from tests.lifecycle.conftest import Project
from tests.lifecycle.registering import WHOLE, decision, open_registry, record, register_trained


@pytest.fixture
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a champion, at `<somewhere>/project`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = project.root
    version = register_trained(root, root, "a", None)[WHOLE]
    open_registry(root).promote(version, decision(version.digest, None), "it is the first")
    return root


def list_files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def load_champion(home: Path, place: Path) -> str:
    """Download the champion's files by the address that the store has; their digest."""
    import mlflow.artifacts

    client = open_tracking(home).client
    version = client.get_model_version_by_alias(WHOLE, "champion")
    files = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{version.source}/data/weights", dst_path=str(place), tracking_uri=client.tracking_uri
    )
    return digest(Path(files))


def test_a_moved_project_reads_and_writes_where_it_is(home: Path, tmp_path: Path, capfd) -> None:
    weights = digest(home / "models/weights")
    moved = home.rename(tmp_path / "elsewhere, with spaces")
    assert load_champion(moved, tmp_path / "files") == weights
    assert f"the project was at {home}/.mlflow/artifacts" in capfd.readouterr().err
    champion = open_registry(moved).read_champion(WHOLE, tmp_path / "champion")
    assert champion is not None
    assert "elsewhere" in champion["evidence.review.html"]
    assert (tmp_path / "champion/evidence/evaluation/part-00000.parquet").is_file()

    before = list_files(moved / ".mlflow/artifacts")
    register_trained(moved, moved, "b", weights)
    assert not home.exists()
    assert set(before) < set(list_files(moved / ".mlflow/artifacts"))
    assert "the project was at" not in capfd.readouterr().err  # once


def test_the_store_is_brought_here_before_a_page_shows_it(home: Path, tmp_path: Path, monkeypatch) -> None:
    """As `make ui` does: MLflow itself would look at the former place."""
    moved = home.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    relocate()
    with closing(sqlite3.connect(moved / ".mlflow/mlflow.db")) as connection:
        places = [place for (place,) in connection.execute("SELECT artifact_uri FROM runs")]
    assert places
    assert all(place.startswith((moved / ".mlflow/artifacts").as_uri()) for place in places)

    monkeypatch.chdir(tmp_path)
    relocate()  # of a project without a run
    assert (tmp_path / ".mlflow").is_dir()


def test_a_copy_leaves_the_original_alone(home: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(home, copied)
    before = list_files(home / ".mlflow/artifacts"), (home / ".mlflow/mlflow.db").read_bytes()
    register_trained(copied, copied, "b", digest(home / "models/weights"))
    shutil.rmtree(copied / "models")
    assert (list_files(home / ".mlflow/artifacts"), (home / ".mlflow/mlflow.db").read_bytes()) == before
    for place in (home, copied):
        assert load_champion(place, tmp_path / f"files of {place.name}") == digest(home / "models/weights")


def test_what_was_written_to_the_former_place_since_is_fetched(home: Path, tmp_path: Path) -> None:
    """As a project did that moved before addresses were brought along: its store is here, new files are there."""
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(home / ".mlflow", moved / ".mlflow")
    record(home, "score", [])
    send_kept_records(home)
    register_trained(home, home, "b", digest(home / "models/weights"))
    shutil.copyfile(home / ".mlflow/mlflow.db", moved / ".mlflow/mlflow.db")
    open_tracking(moved)
    assert list_files(moved / ".mlflow/artifacts") == list_files(home / ".mlflow/artifacts")


def test_checkouts_that_share_a_folder_do_not_pull_it_to_and_fro(home: Path, tmp_path: Path, capfd) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / ".mlflow").symlink_to(home / ".mlflow")
    for place in (second, home, second):
        open_tracking(place)
    assert capfd.readouterr().err == ""
