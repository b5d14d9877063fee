"""Run a fuzzer's cases in a process of their own: a traceback, a hang and a death are faults of that case alone."""

from __future__ import annotations

import importlib
import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

HANG_SECONDS = 60.0
"""A case that takes longer hangs; the longest takes 2 s on an idle core, and others may compute, too."""
START_SECONDS = 120.0
"""What the fuzzer's imports may take besides."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong with the case of one seed."""

    seed: int
    kind: str  # "wrong" | "traceback" | "hang" | "died"
    message: str


def run_cases(fuzzer: str, first: int, count: int, hang_seconds: float = HANG_SECONDS) -> list[Fault]:
    """Try the cases of the seeds from `first` on; return the faults, by seed. `fuzzer`: the name of its module."""
    context = multiprocessing.get_context("spawn")
    faults: list[Fault] = []
    seed, end = first, first + count
    while seed < end:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_try_cases, args=(fuzzer, seed, end, theirs), daemon=True)
        process.start()
        theirs.close()
        seed = _collect_faults(ours, seed, end, hang_seconds, faults)
        process.kill()
        process.join()
    return faults


def _collect_faults(answers: Connection, seed: int, end: int, hang_seconds: float, faults: list[Fault]) -> int:
    """Gather what one process reports, until it is done, hangs or dies; return the seed to go on with."""
    limit = START_SECONDS
    while seed < end:
        try:
            if not answers.poll(limit):
                faults.append(Fault(seed, "hang", f"no answer within {limit:g} s"))
                return seed + 1
            fault = answers.recv()
        except (EOFError, OSError):
            faults.append(Fault(seed, "died", "its process ended without a word"))
            return seed + 1
        limit = hang_seconds
        if fault == "started":
            continue
        if fault is not None:
            faults.append(fault)
        seed += 1
    return seed


def _try_cases(fuzzer: str, first: int, end: int, answers: Connection) -> None:
    """Send for each seed a Fault or None, after one word that says that the imports are done."""
    try_case: Callable[[int], str | None] = importlib.import_module(fuzzer).try_case
    answers.send("started")
    for seed in range(first, end):
        try:
            message = try_case(seed)
            fault = None if message is None else Fault(seed, "wrong", message)
        except BaseException:
            fault = Fault(seed, "traceback", traceback.format_exc(limit=-4).strip())
        answers.send(fault)


def format_report(name: str, faults: list[Fault], count: int, started: float) -> str:
    """Format a line about a fuzzer, and one about each of its first faults."""
    kinds = ", ".join(f"{sum(fault.kind == kind for fault in faults)} {kind}" for kind in KINDS)
    lines = [f"{name}: {count} cases in {time.monotonic() - started:.0f} s, {kinds}"]
    lines += [f"  seed {fault.seed}, {fault.kind}: {fault.message}" for fault in faults[:SHOWN_FAULTS]]
    return "\n".join(lines)


KINDS = ("wrong", "traceback", "hang", "died")
SHOWN_FAULTS = 20
