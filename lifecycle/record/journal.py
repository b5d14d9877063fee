"""The record of a run on disk, where everything is written before it is sent to the tracking server.

    <records>/<id>/journal.jsonl   one event a line: start, metrics, artifact, outputs, end
    <records>/<id>/artifacts/      copies of what is to be uploaded
    <records>/<id>/sent.json       how far it was sent (lifecycle.record.runs)

A record is removed when the tracking server has all of it. Its writer holds a lock on the journal, so that
a record without an `end` whose lock is free is that of a killed run. One that cannot be read is moved to
`<records>/damaged/<id>`, so that it stops no other.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lifecycle.record.privacy import redact, redact_values
from lifecycle.terminal import print_plain
from lifecycle.workspace.staging import WORK, hold_lock, make_private, sync_entry

Status = Literal["FINISHED", "FAILED", "KILLED"]
Event = dict[str, Any]
DAMAGED = "damaged"


class DamagedRecordError(Exception):
    """A record that does not hold what a journal writes; the message says what and where."""


def find_records(home: Path) -> Path:
    """Return the directory of the records of the project at `home`."""
    return make_private(home / WORK) / "records"


class Journal:
    """One run's record, open for writing; what a stage knows as `StepLog`.

    Only opening it raises `OSError`. Later a full disk costs one warning: events wait in memory and are
    written as soon as there is room, because a training of days must not die of its log.
    """

    def __init__(self, home: Path) -> None:
        """Begin a record of the project at `home`; names sort by time."""
        self.folder = find_records(home) / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        (self.folder / "artifacts").mkdir(parents=True)
        with hold_lock(self.folder.parent / ".lock"):  # nobody meets a living journal that is not locked yet
            self._file = os.open(self.folder / "journal.jsonl", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        sync_entry(self.folder)
        sync_entry(self.folder.parent)
        self.last_step = 0
        self._written, self._waiting, self._warned = 0, b"", False

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step; `TypeError` if one is not a number."""
        self.last_step = max(self.last_step, int(step))
        self.event("metrics", step=int(step), values={key: float(value) for key, value in values.items()})

    def image(self, name: str, png: bytes) -> None:
        """Record an encoded PNG as artifact `samples/<name>.png`."""
        with self._tolerate_full_disk(), self._new_artifact(f"samples/{name}.png") as path:
            path.write_bytes(png)

    def text(self, name: str, text: str) -> None:
        """Record a text as artifact `name`."""
        with self._tolerate_full_disk(), self._new_artifact(name) as path:
            path.write_text(redact(text), encoding="utf-8")

    def keep(self, file: Path, name: str) -> None:
        """Record a copy of `file` as artifact `name`."""
        with self._tolerate_full_disk(), self._new_artifact(name) as path:
            shutil.copyfile(file, path)

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event and its time. All but metrics, of which there are many, are on the disk afterwards."""
        line = json.dumps({"event": kind, "time": time.time_ns() // 1_000_000, **redact_values(fields)})
        self._waiting += line.encode() + b"\n"
        with self._tolerate_full_disk():
            self._flush()
            if kind != "metrics":
                os.fsync(self._file)

    def close(self) -> None:
        """Free the journal for whoever sends it."""
        with self._tolerate_full_disk():
            self._flush()
        os.close(self._file)

    def _flush(self) -> None:
        try:
            if os.write(self._file, self._waiting) != len(self._waiting):
                raise OSError("short write")
        except OSError:
            with suppress(OSError):  # take a torn line back: the next try finds out why
                os.ftruncate(self._file, self._written)
                os.lseek(self._file, self._written, os.SEEK_SET)
            raise
        self._written, self._waiting = self._written + len(self._waiting), b""

    @contextmanager
    def _new_artifact(self, name: str) -> Iterator[Path]:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"artifact name {name!r} must be a relative path without `..`")
        path = self.folder.joinpath("artifacts", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        sync_entry(path)
        self.event("artifact", name=name)

    @contextmanager
    def _tolerate_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                print_plain(f"the run's record is incomplete: {redact(str(error))}", file=sys.stderr)
            self._warned = True


def read_events(folder: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield the record's whole events from byte `offset` on, each with the offset behind it. `DamagedRecordError` for a
    whole line that is none."""
    with (folder / "journal.jsonl").open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # torn by a kill, or being written
            yield _parse_event(line, f"{folder.name}/journal.jsonl, byte {offset}"), offset + len(line)
            offset += len(line)


def _parse_event(line: bytes, where: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:  # not JSON, or no text
        raise DamagedRecordError(f"{where}: {line[:40]!r} is no event") from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not isinstance(event.get("time"), int):
        raise DamagedRecordError(f"{where}: {line[:40]!r} has no `event` and `time`")
    return event


def batch_events(stream: Iterator[tuple[Event, int]], most: int) -> Iterator[tuple[list[Event], int]]:
    """Put consecutive metrics events together, at most `most`, others alone; each with the offset behind it."""
    batch: list[Event] = []
    end = 0
    for event, offset in stream:
        if batch and not (event["event"] == batch[0]["event"] == "metrics" and len(batch) < most):
            yield batch, end
            batch = []
        batch.append(event)
        end = offset
    if batch:
        yield batch, end


def close_killed(folder: Path) -> bool:
    """Give the record of a killed run the end KILLED; False if its writer is alive or the record is gone. One that is
    empty or damaged stays as it is: sending it says so."""
    try:
        with hold_lock(folder.parent / ".lock"), (folder / "journal.jsonl").open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last, end = next(iter(deque(read_events(folder), maxlen=1)), (None, 0))
            if last is not None and last["event"] != "end":
                file.truncate(end)
                file.seek(end)
                event: Event = {"event": "end", "time": last["time"], "status": "KILLED", "metrics": {}}
                file.write(json.dumps(event).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
    except (FileNotFoundError, BlockingIOError):
        return False
    except DamagedRecordError:
        return True
    return True


def quarantine_record(folder: Path, reason: str) -> Path:
    """Move a record that cannot be sent out of the way of the others; return where it is now."""
    place = folder.parent / DAMAGED / folder.name
    place.parent.mkdir(exist_ok=True)
    (folder / "reason.txt").write_text(redact(reason) + "\n", encoding="utf-8")
    folder.rename(place)
    sync_entry(place.parent)
    return place


def list_kept_records(home: Path) -> list[Path]:
    """Return the project's records that were not sent whole, oldest first."""
    return sorted(folder.parent for folder in find_records(home).glob("[0-9]*/journal.jsonl"))
