"""`python -m lifecycle`: run a stage, and ask what was run."""

from __future__ import annotations

import argparse
import sys

from lifecycle import telemetry


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, or 1 after one sentence on stderr that says what is wrong."""
    telemetry.switch_off()
    options = _parser().parse_args(argv)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lifecycle", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one stage here, as dvc.yaml does")
    run.add_argument("stage")
    run.set_defaults(command=_run)
    stages = commands.add_parser("stages", help="list the stages in order")
    stages.set_defaults(command=_stages)
    return parser


def _run(options: argparse.Namespace) -> int:
    from lifecycle.run import run_here, sentence

    try:
        run_here(options.stage)
    except (ValueError, OSError) as error:
        print(sentence(options.stage, error), file=sys.stderr)
        return 1
    return 0


def _stages(options: argparse.Namespace) -> int:
    from lifecycle.graph import load_stages

    stages = load_stages()
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        print(f"{stage.name:{width}}  {stage.summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
