"""Output that nobody reads to its end, as with `| head`, is no error to speak of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTING = "import canvas.__main__ as canvas; canvas.COMMANDS['assemble'] = lambda options: ['x' * 1000] * 1000; "


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "lifecycle", "stages"),
        ("-c", PRINTING + "raise SystemExit(canvas.main(['assemble', '--from', 'a', '--out', 'b']))"),
    ],
    ids=["lifecycle", "canvas"],
)
def test_a_reader_that_leaves_ends_a_command_quietly(command: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
