"""`python -m lifecycle`: run a stage, and ask what was run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from lifecycle import telemetry


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, or 1 after one sentence on stderr that says what is wrong."""
    telemetry.switch_off()
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lifecycle", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], says: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=says, description=says)
        added.set_defaults(command=command)
        return added

    add("run", _run, "Run one stage here, as dvc.yaml does").add_argument("stage")
    add("stages", _stages, "List the stages, producers first")
    add("summary", _summary, "Print what the last run left, and where to look at it")
    add("lineage", _lineage, "Print what made an artifact, back to the raw data").add_argument("path", type=Path)
    add("records", _records, "Send the records of runs that tracking has not got yet")
    return parser


def _run(options: argparse.Namespace) -> int:
    from lifecycle.run import run_here

    run_here(options.stage)
    return 0


def _stages(options: argparse.Namespace) -> int:
    from lifecycle.graph import load_stages

    stages = load_stages()
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        print(f"{stage.name:{width}}  {stage.summary}")
    return 0


def _summary(options: argparse.Namespace) -> int:
    from lifecycle.graph import load_stages
    from lifecycle.summary import summary

    print(summary(load_stages(), Path.cwd()))
    return 0


def _lineage(options: argparse.Namespace) -> int:
    from lifecycle.graph import load_stages
    from lifecycle.lineage import artifact_at, content_of, lineage, lines
    from lifecycle.origin import home
    from lifecycle.sender import send_kept_records
    from lifecycle.tracking import TrackingDownError, connect

    root, stages = Path.cwd(), load_stages()
    pinned = {artifact.path for stage in stages for artifact in stage.inputs.values() if artifact.pinned}
    try:
        artifact = artifact_at(options.path, root, stages)
        content = content_of(artifact, root)
        send_kept_records(home(root))
        tree = lineage(artifact.path, content, connect(home(root)).made)
    except (ValueError, TrackingDownError) as error:
        return _complain(str(error))
    if tree.made is None and not artifact.pinned:
        return _complain(
            f"no run is recorded that wrote {artifact.path} with digest {content}: "
            "`dvc repro --force` on its stage records one"
        )
    print("\n".join(lines(tree, pinned)))
    return 0


def _records(options: argparse.Namespace) -> int:
    from lifecycle.origin import home
    from lifecycle.sender import send_kept_records
    from lifecycle.tracking import TrackingDownError

    try:
        sent, kept = send_kept_records(home(Path.cwd()))
    except TrackingDownError as error:
        return _complain(str(error))
    print(f"{sent} sent, {kept} still here")
    return 0


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
