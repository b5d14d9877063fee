"""`python -m tests.fuzz [NAME ...] [--cases N] [--first SEED]`: run fuzzers, exit with 1 where a case went wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.fuzz.runner import format_report, run_cases

FUZZERS = ("images", "manifest", "params")
"""Modules of this package."""
CASES = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Try broken input from fixed seeds.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FUZZERS)}; all, if none is given")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(FUZZERS)):
        parser.error(f"{', '.join(unknown)} unknown: name {' or '.join(FUZZERS)}")
    failed = False
    for name in options.names or FUZZERS:
        started = time.monotonic()
        faults = run_cases(f"tests.fuzz.{name}", options.first, options.cases)
        print(format_report(name, faults, options.cases, started), flush=True)
        failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
