"""A command that ends with the process that started it, however that ends: `python supervisor.py PARENT COMMAND ...`.

A process that is killed takes nothing down with it. So this one stands between: it waits for the command, passes
SIGTERM on, and kills the command with all its descendants as soon as PARENT is no longer its parent, and what a command
leaves running that was killed itself. It imports nothing of ours, so that it starts in any working directory.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

PERIOD = 0.2  # seconds between two looks at the parent
SET_CHILD_SUBREAPER = 36  # of Linux' prctl


def supervise_command(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` until it ends or this process does."""
    return [sys.executable, "-P", __file__, str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> int:
    """Run `command`; return its exit code, 128 + the signal's number if one ended it."""
    signals: list[int] = []
    _adopt_orphans()
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: None)  # a terminal's Ctrl-C reaches the command, too
    with subprocess.Popen(command) as process:
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(PERIOD)
                if code < 0:  # it could not end what it had started
                    _kill_descendants()
                return 128 - code if code < 0 else code
            if os.getppid() != parent:
                _kill_descendants()
                return 128 + signal.SIGKILL
            if signals:
                signals.clear()
                process.terminate()


def _adopt_orphans() -> None:
    """Let descendants whose parent ends become children of this process, where the system can do that (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill all that descends from this process. Those that start meanwhile are met in another round."""
    import psutil

    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(descendants, timeout=PERIOD)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
