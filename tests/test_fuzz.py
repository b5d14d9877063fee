"""The runner of the fuzzers sees every kind of fault, and goes on after it."""

from __future__ import annotations

import os
import time

from tests.fuzz.runner import format_report, run_cases


def try_case(seed: int) -> str | None:
    """A fuzzer of which each seed goes wrong in its own way."""
    if seed == 1:
        raise RuntimeError("broken")
    if seed == 2:
        time.sleep(60)
    if seed == 3:
        os._exit(9)
    return "accepted in silence" if seed == 4 else None


def test_every_kind_of_fault_is_seen_and_the_next_case_is_tried() -> None:
    started = time.monotonic()
    faults = run_cases(__name__, 0, 6, hang_seconds=1.0)
    assert [(fault.seed, fault.kind) for fault in faults] == [
        (1, "traceback"), (2, "hang"), (3, "died"), (4, "wrong")
    ]  # fmt: skip
    assert "RuntimeError: broken" in faults[0].message
    report = format_report("own", faults, 6, started)
    assert "1 wrong, 1 traceback, 1 hang, 1 died" in report
    assert "seed 4, wrong: accepted in silence" in report
