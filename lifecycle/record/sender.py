"""The process beside a stage that sends its record to MLflow: `python -m lifecycle.record.sender <home> <record>`.

A process of its own, so that MLflow is imported on another core while the stage works, takes nothing of the
stage's memory, and cannot fail it. It sends at the start, every PERIOD seconds (live curves), and when its
standard input ends: then the stage is done, or was killed. On the way it sends what former runs left.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.record.journal import (
    DamagedRecordError,
    close_killed,
    find_records,
    list_kept_records,
    quarantine_record,
)
from lifecycle.record.privacy import disable_telemetry, summarize_error
from lifecycle.record.tracking import TrackingDownError, open_tracking
from lifecycle.terminal import print_plain
from lifecycle.workspace.staging import try_lock

if TYPE_CHECKING:
    from lifecycle.record.runs import Tracking

PERIOD = 30.0


def main(home: Path, record: Path) -> None:
    """Send `record` until the stage's end; complain once, on stderr, about what could not be sent."""
    disable_telemetry()
    sender = _Sender(home)
    sender.send_kept(but=record)
    sender.send(record)
    while not select.select([sys.stdin], [], [], PERIOD)[0]:
        sender.send(record)
    close_killed(record)
    sender.send(record)
    if record.exists():
        print_plain(f"{sender.trouble}: the record is kept in {record} and the next run sends it", file=sys.stderr)


def send_kept_records(home: Path, *, need_all: bool = False) -> tuple[int, int]:
    """Send what ended runs left; return how many were sent, how many stay. A damaged record, or one that the server
    refuses, is named on stderr and stops no other. `TrackingDownError` if nobody answers; with `need_all` also if the
    server refuses one."""
    waiting = [folder for folder in list_kept_records(home) if close_killed(folder)]
    sender = _Sender(home)
    sender.send_kept()
    kept = sum(folder.exists() for folder in waiting)
    if kept and sender.trouble:
        trouble = f"{sender.trouble}: {kept} records stay in {find_records(home)}"
        if need_all or not sender.is_connected:
            raise TrackingDownError(trouble)
        print_plain(trouble, file=sys.stderr)
    return len(waiting) - kept - sender.damaged, kept


class _Sender:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.trouble = ""
        self.damaged = 0  # records put into quarantine
        self._tracking: Tracking | None = None

    @property
    def is_connected(self) -> bool:
        return self._tracking is not None

    def send_kept(self, but: Path | None = None) -> None:
        """Send every record whose run is over, oldest first, so that models come before their readers."""
        for folder in list_kept_records(self.home):
            if folder != but and close_killed(folder) and not self.send(folder) and self._tracking is None:
                return  # nobody answers
        for sent in find_records(self.home).glob(".sent-*"):
            shutil.rmtree(sent, ignore_errors=True)

    def send(self, folder: Path) -> bool:
        """Send what is new; False, with `trouble` set, if that failed. Never raises."""
        try:
            with try_lock(folder / "sending") as locked:
                if locked and (folder / "journal.jsonl").exists():
                    self._tracking = self._tracking or open_tracking(self.home)
                    self._tracking.send(folder)
        except TrackingDownError as error:
            self.trouble = str(error)
            return False
        except DamagedRecordError as error:
            return self._quarantine(folder, str(error))
        except Exception as error:  # MLflow's, the database's, the network's: none of them may stop the stage
            self.trouble = f"tracking failed ({summarize_error(error)})"
            return False
        return True

    def _quarantine(self, folder: Path, reason: str) -> bool:
        if not close_killed(folder):
            self.trouble = f"the record is damaged ({reason})"
            return False  # its run goes on writing
        try:
            place = quarantine_record(folder, reason)
        except OSError as error:
            self.trouble = f"the record is damaged ({reason}) and cannot be moved ({summarize_error(error)})"
            return False
        self.damaged += 1
        print_plain(
            f"a run's record is damaged ({reason}): it is kept in {place}, the others are sent", file=sys.stderr
        )
        return True


if __name__ == "__main__":
    sys.stdout = sys.stderr  # MLflow prints addresses of runs
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stderr.flush()
    os._exit(0)  # everything is committed; taking MLflow down in order would cost the stage a second or two
