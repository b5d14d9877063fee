"""`python -m pipelines graph | code | outside | effort | local | submit`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from lifecycle.declare.params import load_sections
from lifecycle.declare.stage import Pipeline
from lifecycle.record.privacy import disable_telemetry
from lifecycle.terminal import ignore_broken_pipe, print_plain
from pipelines.emit_dvc import write_code_lists
from pipelines.outside import remember_if_empty, write_fingerprints
from pipelines.project import build_files, build_graph_files, find_drift, load_project_stages, set_effort, write_graph


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, or 1 after one sentence about what is wrong."""
    options = _build_parser().parse_args(arguments)
    disable_telemetry()
    try:
        with ignore_broken_pipe():
            return int(options.command(options, Path.cwd()))
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print_plain(f"pipelines {options.name}: {error}", file=sys.stderr)
        return 1


def graph(options: argparse.Namespace, root: Path) -> int:
    """Write the generated files, or with --check only say which have drifted."""
    stages = load_project_stages()
    files = build_files(root, stages)
    if options.check:
        stale = find_drift(root, files)
        for path in stale:
            print(f"{path} has drifted from the stages: run `make graph`", file=sys.stderr)
        return 1 if stale else 0
    changed = write_graph(root, files)
    print(f"{len(stages)} stages; {', '.join(map(str, changed)) or 'nothing'} changed")
    return 0


def code(options: argparse.Namespace, root: Path) -> int:
    """Write what code each stage runs, by which DVC knows the stale ones."""
    write_code_lists(root)
    return 0


def outside(options: argparse.Namespace, root: Path) -> int:
    """Ask whether what stages read outside the project has changed, and write the answer for DVC."""
    stages, sections = load_project_stages(), load_sections(root=root)
    for line in write_fingerprints(root, stages, sections):
        print_plain(line)
    remember_if_empty(root, stages, sections)
    return 0


def effort(options: argparse.Namespace, root: Path) -> int:
    """Set how long the trainings of params.yaml last, and leave the rest of the file as it is."""
    print(set_effort(root, load_project_stages(), options.times))
    return 0


def local(options: argparse.Namespace, root: Path) -> int:
    """Run a compiled pipeline here and print its outputs."""
    from pipelines.local import list_outputs, run_local

    stages = load_project_stages()
    if stale := find_drift(root, build_graph_files(root, stages)):
        raise ValueError(f"{', '.join(map(str, stale))} no longer fits the stages: run `make graph` first")
    folder = run_local(root, stages, options.profile, options.pipeline)
    print(*list_outputs(folder, stages), f"Everything lies in {folder}", sep="\n")
    return 0


def submit(options: argparse.Namespace, root: Path) -> int:
    """Create a run on a cluster."""
    from pipelines.submit import create_run, prepare_submission

    submission = prepare_submission(
        root,
        load_project_stages(),
        profile=options.profile,
        pipeline=options.pipeline,
        uris=dict(options.uri),
        allow_dirty=options.allow_dirty,
    )
    run = create_run(submission, options.host, options.namespace)
    print_plain(f"run {run} created: {submission.run_name}")
    for name, uri in submission.uris.items():
        print_plain(f"{name}: {uri}")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="name")

    def add(command: Callable[[argparse.Namespace, Path], int], summary: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(command.__name__, help=summary)
        subparser.set_defaults(command=command)
        return subparser

    graph_command = add(graph, "write dvc.yaml, pipelines/compiled/ and docs/params.md")
    graph_command.add_argument("--check", action="store_true", help="change nothing; exit 1 and name drifted files")
    add(code, "write artifacts/code/: the files that the code of each stage runs")
    add(outside, "write artifacts/outside/: what tells content outside the project from another")
    effort_command = add(effort, "scale the steps of every training in params.yaml")
    effort_command.add_argument("times", type=float, help="1: as each section says; 0.5: half as many steps")
    local_command = add(local, "run a compiled pipeline on this machine")
    local_command.add_argument("--profile", default="tiny")
    submit_command = add(submit, "run a compiled pipeline on a cluster")
    submit_command.add_argument("--host", required=True, help="address of Kubeflow Pipelines, http(s)://...")
    submit_command.add_argument("--profile", required=True)
    for command in (local_command, submit_command):
        command.add_argument("--pipeline", choices=get_args(Pipeline), default="train")
    submit_command.add_argument("--namespace", help="of the run, on a multi-user cluster")
    submit_command.add_argument(
        "--uri", type=_parse_uri, action="append", default=[], metavar="PATH=URI", help="where an outside artifact lies"
    )
    submit_command.add_argument("--allow-dirty", action="store_true", help="despite uncommitted changes")
    return parser


def _parse_uri(text: str) -> tuple[str, str]:
    path, separator, uri = text.partition("=")
    if not (path and separator and uri):
        raise argparse.ArgumentTypeError(f"{text!r} is not PATH=URI")
    return path, uri


if __name__ == "__main__":
    sys.exit(main())
