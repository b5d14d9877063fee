"""The record on disk: complete lines or none, and who may end it."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from lifecycle.record.journal import Journal, close_killed, list_kept_records, read_events


def kinds(folder: Path) -> list[str]:
    return [event["event"] for event, _ in read_events(folder)]


def test_events_come_back_in_order_with_offsets(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("start", params={"uri": "s3://user:secret@bucket"})
    journal.metrics({"loss": 0.5}, step=7)
    journal.image("samples/one", b"png")
    read = list(read_events(journal.folder))
    assert [event["event"] for event, _ in read] == ["start", "metrics", "artifact"]
    assert read[0][0]["params"] == {"uri": "s3://bucket"}
    assert read[1][0]["values"] == {"loss": 0.5}
    assert (journal.folder / "artifacts" / read[2][0]["name"]).read_bytes() == b"png"
    assert [event for event, _ in read_events(journal.folder, read[0][1])] == [event for event, _ in read[1:]]
    assert journal.last_step == 7


def test_a_text_keeps_no_secret(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.text("traceback.txt", "OSError: http://user:secret@host")
    assert (journal.folder / "artifacts" / "traceback.txt").read_text() == "OSError: http://host"


@pytest.mark.parametrize("name", ["../up", "../../passwd", "a/../../b"])
def test_an_image_stays_in_the_record(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a relative path"):
        Journal(tmp_path).image(name, b"png")


def test_a_metric_is_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Journal(tmp_path).metrics({"loss": "low"}, step=0)  # type: ignore[dict-item]


def test_a_living_record_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("start")
    assert not close_killed(journal.folder)
    assert kinds(journal.folder) == ["start"]


def test_a_dead_record_is_ended_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("start")
    journal.close()
    with (journal.folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"event": "metrics", "time": 3, "val')
    assert kinds(journal.folder) == ["start"]
    assert close_killed(journal.folder)
    assert close_killed(journal.folder)
    assert kinds(journal.folder) == ["start", "end"]
    assert list(read_events(journal.folder))[-1][0]["status"] == "KILLED"


def test_an_end_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.event("start")
    journal.event("end", status="FINISHED")
    journal.close()
    assert close_killed(journal.folder)
    assert list(read_events(journal.folder))[-1][0]["status"] == "FINISHED"


def test_records_are_listed_oldest_first(tmp_path: Path) -> None:
    made = [Journal(tmp_path) for _ in range(3)]
    assert list_kept_records(tmp_path) == [journal.folder for journal in made]


def test_a_full_disk_loses_no_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path)
    journal.event("start")
    size = (journal.folder / "journal.jsonl").stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        journal.metrics({"loss": 1.0}, step=0)
        journal.metrics({"loss": 2.0}, step=1)
        assert (journal.folder / "journal.jsonl").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    journal.metrics({"loss": 3.0}, step=2)
    written = (journal.folder / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line).get("step") for line in written] == [None, 0, 1, 2]
    assert capfd.readouterr().err.count("the run's record is incomplete") == 1
