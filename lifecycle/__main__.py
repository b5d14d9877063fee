"""`python -m lifecycle`: run a stage, and ask what was run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lifecycle import commands
from lifecycle.record.privacy import disable_telemetry
from lifecycle.run.stage import run_here
from lifecycle.terminal import ignore_broken_pipe, strip_controls


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 1 after one sentence on stderr that says what is wrong."""
    disable_telemetry()
    options = vars(_build_parser().parse_args(argv))
    command: commands.Command = options.pop("command")
    try:
        with ignore_broken_pipe():
            command(**options)
    except (ValueError, OSError) as error:
        print(strip_controls(str(error)), file=sys.stderr)
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lifecycle", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: commands.Command, summary: str) -> argparse.ArgumentParser:
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(command=command)
        return subparser

    add("run", run_here, "Run one stage here, as dvc.yaml does").add_argument("name", metavar="STAGE")
    add("stages", commands.print_stages, "List the stages, producers first")
    add("summary", commands.print_summary, "Print what the last run left, and where to look at it")
    lineage = add("lineage", commands.print_lineage, "Print what made an artifact, back to the raw data")
    lineage.add_argument("path", type=Path)
    promote = add("promote", commands.promote, "Make the candidate champion, if its verdict is pass")
    rollback = add("rollback", commands.rollback, "Undo the last promotion: `previous` is champion again")
    for move in (promote, rollback):
        move.add_argument("--why", required=True, help="a sentence for the registry's history")
    champion = add("champion", commands.champion, "Write the pinned champion from the registry, or show its history")
    champion.add_argument("action", choices=("pull", "history"))
    rate = add("rate", commands.rate, "Serve the rating packet on loopback, a queue for each rater, until Ctrl-C")
    rate.add_argument("raters", nargs="+", metavar="NAME", help="lower-case letters, digits, - and _")
    ratings = add("ratings", commands.ratings, "Write the pinned ratings from answers, or the feedback from ratings")
    ratings.add_argument("action", choices=("pull", "learn"), help="learn: training is to learn from them")
    add("inputs", commands.restore_inputs, "Write pinned inputs that their pins say are empty, in a fresh checkout")
    add("records", commands.send_records, "Send the records of runs that tracking has not got yet")
    add("relocate", commands.relocate, "Bring the addresses of a moved or copied project's own store here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
