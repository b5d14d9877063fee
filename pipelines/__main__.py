"""`python -m pipelines graph | effort | local | submit`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from lifecycle.declare.stage import Pipeline
from lifecycle.record.privacy import disable_telemetry
from pipelines.effort import set_effort
from pipelines.project import drifted, generated_files, graph_files, project_stages, write_graph


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 after one sentence about what is wrong."""
    asked = _parser().parse_args(arguments)
    disable_telemetry()
    try:
        return int(asked.command(asked, Path.cwd()))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"pipelines {asked.name}: {error}", file=sys.stderr)
        return 1


def graph(asked: argparse.Namespace, root: Path) -> int:
    """Write the generated files, or with --check only say which have drifted."""
    stages = project_stages()
    files = generated_files(root, stages)
    if asked.check:
        stale = drifted(root, files)
        for path in stale:
            print(f"{path} has drifted from the stages: run `make graph`", file=sys.stderr)
        return 1 if stale else 0
    changed = write_graph(root, files)
    print(f"{len(stages)} stages; {', '.join(map(str, changed)) or 'nothing'} changed")
    return 0


def effort(asked: argparse.Namespace, root: Path) -> int:
    """Set how long the trainings of params.yaml last, and leave the rest of the file as it is."""
    print(set_effort(root, project_stages(), asked.times))
    return 0


def local(asked: argparse.Namespace, root: Path) -> int:
    """Run a compiled pipeline here and print what it made."""
    from pipelines.local import run_local, show

    stages = project_stages()
    if stale := drifted(root, graph_files(root, stages)):
        raise ValueError(f"{', '.join(map(str, stale))} no longer fits the stages: run `make graph` first")
    show(run_local(root, stages, asked.profile, asked.pipeline), stages)
    return 0


def submit(asked: argparse.Namespace, root: Path) -> int:
    """Create a run on a cluster."""
    from pipelines import submit as cluster

    submission = cluster.submission(
        root,
        project_stages(),
        profile=asked.profile,
        pipeline=asked.pipeline,
        uris=dict(asked.uri),
        allow_dirty=asked.allow_dirty,
    )
    run = cluster.submit(submission, asked.host, asked.namespace)
    print(f"run {run} created: {submission.run_name}")
    for name, uri in submission.uris.items():
        print(f"{name}: {uri}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="name")

    of_graph = commands.add_parser("graph", help="write dvc.yaml, pipelines/compiled/ and docs/params.md")
    of_graph.add_argument("--check", action="store_true", help="change nothing; exit 1 and name the files that drifted")
    of_graph.set_defaults(command=graph)

    of_effort = commands.add_parser("effort", help="scale the steps of every training in params.yaml")
    of_effort.add_argument("times", type=float, help="1: as each section says; 0.5: half as many steps")
    of_effort.set_defaults(command=effort)

    of_local = commands.add_parser("local", help="run a compiled pipeline on this machine")
    of_local.add_argument("--profile", default="tiny")
    of_local.add_argument("--pipeline", choices=get_args(Pipeline), default="train")
    of_local.set_defaults(command=local)

    of_submit = commands.add_parser("submit", help="run a compiled pipeline on a cluster")
    of_submit.add_argument("--host", required=True, help="address of Kubeflow Pipelines, http(s)://...")
    of_submit.add_argument("--profile", required=True)
    of_submit.add_argument("--pipeline", choices=get_args(Pipeline), default="train")
    of_submit.add_argument("--namespace", help="of the run, on a multi-user cluster")
    of_submit.add_argument(
        "--uri", type=_place, action="append", default=[], metavar="PATH=URI", help="where an outside artifact lies"
    )
    of_submit.add_argument("--allow-dirty", action="store_true", help="despite uncommitted changes")
    of_submit.set_defaults(command=submit)
    return parser


def _place(text: str) -> tuple[str, str]:
    path, separator, uri = text.partition("=")
    if not (path and separator and uri):
        raise argparse.ArgumentTypeError(f"{text!r} is not PATH=URI")
    return path, uri


if __name__ == "__main__":
    sys.exit(main())
