"""Records as a kill or a loss of power leaves them: the damaged one is set apart and named, the others are sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from canvas.pins.images import encode_png
from lifecycle.record.journal import Journal, find_records
from lifecycle.record.sender import send_kept_records
from lifecycle.registry.registry import MlflowRegistry
from tests.lifecycle.conftest import Project
from tests.lifecycle.record.test_runs import MODEL, begin_record, end_record


def empty(folder: Path) -> None:
    (folder / "journal.jsonl").write_bytes(b"")


def fill_with_zeros(folder: Path) -> None:
    """The last line, as a file system leaves what it had not written yet."""
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + b"\0" * (len(lines[-1]) - 1) + b"\n")


def lose_the_start(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[1:]))


def lose_a_field(folder: Path) -> None:
    text = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(text.replace('"params"', '"parms"'))


def lose_an_artifact(folder: Path) -> None:
    (folder / "artifacts" / "note.txt").unlink()


def lose_a_digest(folder: Path) -> None:
    text = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(text.replace('"digest":', '"digits":'))


DAMAGES = (empty, fill_with_zeros, lose_the_start, lose_a_field, lose_a_digest, lose_an_artifact)


@pytest.fixture
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project.root


def write_record(home: Path, stage: str) -> Path:
    journal = begin_record(home, stage, params={})
    journal.text("note.txt", "a note")
    return end_record(journal, MODEL)


def list_runs(project: Project) -> list[tuple[str, str]]:
    client = project.client()
    experiment = client.get_experiment_by_name("canvas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [(run.info.run_name, run.info.status) for run in runs]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_set_apart_and_the_others_go_on(
    project: Project, home: Path, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    write_record(home, "before")
    damaged = write_record(home, "damaged")
    write_record(home, "after")
    damage(damaged)
    assert send_kept_records(home) == (2, 0)
    note = capfd.readouterr().err
    place = find_records(home) / "damaged" / damaged.name
    assert f"it is kept in {place}" in note
    assert (place / "reason.txt").read_text().strip() in note
    assert [run for run in list_runs(project) if run[0] != "damaged"] == [("before", "FINISHED"), ("after", "FINISHED")]
    assert all(status == "KILLED" for name, status in list_runs(project) if name == "damaged")
    assert send_kept_records(home) == (0, 0)
    assert capfd.readouterr().err == ""
    assert MlflowRegistry.open(home, ["data"]).read_history("test-weights") == []


def test_a_store_without_its_disk_damages_no_record(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """MLflow's own FileNotFoundError: the record waits. Who registers needs it, who looks does not."""
    from mlflow import MlflowClient

    store = MlflowClient(f"sqlite:///{home}/.mlflow/mlflow.db")
    store.create_experiment("canvas", artifact_location="file:///proc/not-mounted")
    folder = write_record(home, "train")
    assert send_kept_records(home) == (0, 1)
    assert "tracking failed ([Errno 2]" in capfd.readouterr().err
    assert folder.is_dir()
    with pytest.raises(ValueError, match=r"the registry is needed: tracking failed .*: 1 records stay in"):
        MlflowRegistry.open(home, ["data"], need_lineage=True)
    assert MlflowRegistry.open(home, ["data"]).read_history("test-weights") == []


@pytest.mark.parametrize("damage", [lambda png: png[:60], lambda png: b"\0" * len(png), lambda png: b""])
def test_a_damaged_image_is_sent_as_it_is(project: Project, home: Path, damage: Callable[[bytes], bytes]) -> None:
    journal = begin_record(home, "train", params={})
    journal.image("scene-000200", encode_png(Image.effect_noise((64, 64), 50)))
    file = journal.folder / "artifacts" / "samples" / "scene-000200.png"
    file.write_bytes(damage(file.read_bytes()))
    end_record(journal)
    assert send_kept_records(home) == (1, 0)
    assert list_runs(project) == [("train", "FINISHED")]


def test_a_torn_note_of_what_was_sent_sends_again_without_effect(project: Project, home: Path) -> None:
    from lifecycle.record.tracking import open_tracking

    journal = begin_record(home, "train", params={"a": 1})
    journal.metrics({"loss": 0.5}, 1)
    open_tracking(home).send(journal.folder)
    for torn in (b'{"uri": "', b"\0" * 80, b"[]"):
        (journal.folder / "sent.json").write_bytes(torn)
        open_tracking(home).send(journal.folder)
    end_record(journal)
    assert send_kept_records(home) == (1, 0)
    assert list_runs(project) == [("train", "FINISHED")]


def test_a_journal_cut_behind_what_was_sent(project: Project, home: Path) -> None:
    """The note reached the disk, the line before it did not."""
    from lifecycle.record.tracking import open_tracking

    journal = begin_record(home, "train", params={})
    journal.metrics({"loss": 0.5}, 1)
    open_tracking(home).send(journal.folder)
    journal.close()
    file = journal.folder / "journal.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert send_kept_records(home) == (1, 0)
    assert list_runs(project) == [("train", "KILLED")]


def test_a_living_record_without_an_event_is_left_alone(home: Path) -> None:
    journal = Journal(home)
    assert send_kept_records(home) == (0, 0)
    assert journal.folder.is_dir()


def test_lineage_goes_on(project: Project, home: Path) -> None:
    empty(write_record(home, "damaged"))
    for stage in ("fetch", "train"):
        assert project.lifecycle("run", stage).returncode == 0
    done = project.lifecycle("lineage", "models/weights")
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
