"""A command under the supervisor, in real processes: it ends as the command does, and with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lifecycle.workspace.supervisor import supervise_command

SLEEPER = "import time; time.sleep(60)"
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)
open(sys.argv[1], 'w').write(f'{child.pid}')
time.sleep(60)
"""
STARTER = """
import subprocess, sys
from lifecycle.workspace.supervisor import supervise_command
subprocess.run(supervise_command([sys.executable, '-c', sys.argv[1], sys.argv[2]]))
"""


def run(code: str) -> int:
    return subprocess.run(supervise_command([sys.executable, "-c", code]), check=False).returncode


def test_the_exit_code_is_the_commands() -> None:
    assert run("raise SystemExit(7)") == 7
    assert run("import os; os.kill(os.getpid(), 9)") == 128 + signal.SIGKILL


def test_sigterm_is_passed_on() -> None:
    with subprocess.Popen(supervise_command([sys.executable, "-c", SLEEPER])) as process:
        wait_until(lambda: len(psutil.Process(process.pid).children()) == 1)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM


def test_the_family_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """A grandchild in a session of its own, as torchrun starts its ranks."""
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", STARTER, FAMILY, str(note)]) as process:
        wait_until(lambda: note.exists() and note.read_text() != "")
        family = psutil.Process(process.pid).children(recursive=True)
        assert int(note.read_text()) in [member.pid for member in family]
        assert len(family) == 3
        process.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert (len(gone), alive) == (3, [])


def test_the_family_dies_with_a_killed_command(tmp_path: Path) -> None:
    """As ranks whose torchrun is killed: they would go on, and write what the stage has given up."""
    note = tmp_path / "pid"
    with subprocess.Popen(supervise_command([sys.executable, "-c", FAMILY, str(note)])) as process:
        wait_until(lambda: note.exists() and note.read_text() != "")
        grandchild = psutil.Process(int(note.read_text()))
        (command,) = psutil.Process(process.pid).children()
        command.kill()
        assert process.wait(20) == 128 + signal.SIGKILL
    assert psutil.wait_procs([grandchild], timeout=20)[1] == []


def wait_until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)
