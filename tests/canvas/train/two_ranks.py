"""Two processes under one torchrun, as tests of distributed training start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_in_two_ranks(module: str, argument: str, seconds: float = 600) -> None:
    """Run `python -m MODULE ARGUMENT` as both ranks of a world of two; fails with the end of their output, or after so
    many seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, "-m", module, argument],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun and its ranks
    assert process.returncode == 0, output.decode()[-4000:]
