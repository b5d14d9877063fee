"""`python -m lifecycle`: run a stage, and ask what was run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.record import telemetry

if TYPE_CHECKING:
    from lifecycle.registry.registry import MlflowRegistry


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
    for name, command, says in (
        ("promote", _promote, "Make the candidate champion, if its verdict is pass"),
        ("rollback", _rollback, "Undo the last promotion: `previous` is champion again"),
    ):
        add(name, command, says).add_argument("--why", required=True, help="a sentence for the registry's history")
    champion = add("champion", _champion, "Write the pinned champion from the registry, or show its history")
    champion.add_argument("action", choices=("pull", "history"))
    rate = add("rate", _rate, "Serve the rating packet on loopback, a queue for each rater, until Ctrl-C")
    rate.add_argument("raters", nargs="+", metavar="NAME", help="lower-case letters, digits, - and _")
    ratings = add("ratings", _ratings, "Write the pinned ratings from what people answered, or the feedback from them")
    ratings.add_argument("action", choices=("pull", "learn"), help="learn: training is to learn from them")
    add("inputs", _inputs, "Write pinned inputs whose pin says that they are empty, in a fresh checkout")
    add("records", _records, "Send the records of runs that tracking has not got yet")
    return parser


def _run(options: argparse.Namespace) -> int:
    from lifecycle.run.stage import run_here

    run_here(options.stage)
    return 0


def _stages(options: argparse.Namespace) -> int:
    from lifecycle.declare.graph import load_stages

    stages = load_stages()
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        print(f"{stage.name:{width}}  {stage.summary}")
    return 0


def _summary(options: argparse.Namespace) -> int:
    from lifecycle.declare.graph import load_stages
    from lifecycle.summary import summarize

    print(summarize(load_stages(), Path.cwd()))
    return 0


def _lineage(options: argparse.Namespace) -> int:
    from lifecycle.declare.graph import load_stages, pinned_paths
    from lifecycle.record.lineage import artifact_at, content_of, lineage, lines
    from lifecycle.record.origin import home
    from lifecycle.record.sender import send_kept_records
    from lifecycle.record.tracking import TrackingDownError, connect

    root, stages = Path.cwd(), load_stages()
    pinned = pinned_paths(stages)
    try:
        artifact = artifact_at(options.path, root, stages)
        content = content_of(artifact, root)
        send_kept_records(home(root))
        tree = lineage(artifact.path, content, connect(home(root)).made)
    except (ValueError, TrackingDownError) as error:
        return _complain(str(error))
    if tree.made is None and artifact.path not in pinned:
        return _complain(
            f"no run is recorded that wrote {artifact.path} with digest {content}: "
            "`dvc repro --force` on its stage records one"
        )
    print("\n".join(lines(tree, pinned)))
    return 0


def _promote(options: argparse.Namespace) -> int:
    def promote(registry: MlflowRegistry, whole: str) -> str:
        version, decision = registry.candidate(whole)
        done = registry.promote(version, decision, options.why, again=True)
        return f"{whole} version {done.after} is champion, version {done.before or 'none'} was; {done.who}: {done.why}"

    return _registry(promote)


def _rollback(options: argparse.Namespace) -> int:
    def rollback(registry: MlflowRegistry, whole: str) -> str:
        done = registry.rollback(whole, options.why)
        return f"{whole} version {done.after} is champion again, version {done.before} was; {done.who}: {done.why}"

    return _registry(rollback)


def _champion(options: argparse.Namespace) -> int:
    def pull(registry: MlflowRegistry, whole: str) -> str:
        from lifecycle.declare.graph import artifact_of, load_stages
        from lifecycle.declare.stage import PinnedChampion
        from lifecycle.registry.champion import pull

        pinned = artifact_of(load_stages(), PinnedChampion)
        version = pull(registry, whole, pinned, Path.cwd())
        what = f"version {version} of {whole}" if version else f"no champion of {whole}"
        return f"{pinned.path}/ holds {what}; commit {pinned.path}.dvc with what you make from it"

    def history(registry: MlflowRegistry, whole: str) -> str:
        moves = registry.history(whole)
        lines = [f"{move.when}  {move.kind:8}  {move.before} -> {move.after}  {move.who}: {move.why}" for move in moves]
        return "\n".join(lines) or f"{whole} never had a champion"

    return _registry(pull if options.action == "pull" else history)


def _registry(ask: Callable[[MlflowRegistry, str], str]) -> int:
    """Print what `ask` makes of the registry and the composite's name."""
    from lifecycle.declare.graph import composite_of, load_stages, pinned_paths
    from lifecycle.record.origin import home
    from lifecycle.registry.registry import MlflowRegistry
    from lifecycle.registry.versions import model_name

    stages = load_stages()
    try:
        whole = model_name(composite_of(stages))
        print(ask(MlflowRegistry.open(home(Path.cwd()), pinned_paths(stages)), whole))
    except ValueError as error:
        return _complain(str(error))
    return 0


def _rate(options: argparse.Namespace) -> int:
    import signal

    from lifecycle.declare.graph import load_stages
    from lifecycle.ratings.ratings import desks

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with us
    try:
        with desks(Path.cwd(), load_stages(), options.raters) as seated:
            for desk in seated:
                print(f"{desk.rater}: {' '.join(desk.pages)}")
            print(
                "Passwords are in .mlflow/rating/secrets.json, for you alone. Ctrl-C ends; all answers stay.",
                flush=True,
            )
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except ValueError as error:
        return _complain(str(error))
    return 0


def _ratings(options: argparse.Namespace) -> int:
    from lifecycle.declare.graph import load_stages
    from lifecycle.ratings.ratings import learn, pull

    root, stages = Path.cwd(), load_stages()
    try:
        print("\n".join(pull(root, stages)) if options.action == "pull" else learn(root, stages))
    except ValueError as error:
        return _complain(str(error))
    return 0


def _inputs(options: argparse.Namespace) -> int:
    from lifecycle.declare.graph import artifacts_of, load_stages
    from lifecycle.declare.stage import PinnedState
    from lifecycle.registry.pinned import restore_empty

    try:
        for pinned in artifacts_of(load_stages(), PinnedState):
            if Path(f"{pinned.path}.dvc").is_file():
                written = restore_empty(pinned, Path.cwd())
                print(f"{pinned.path}/ is written: {pinned.empty}" if written else f"{pinned.path}/ is there")
    except ValueError as error:
        return _complain(str(error))
    return 0


def _records(options: argparse.Namespace) -> int:
    from lifecycle.record.origin import home
    from lifecycle.record.sender import send_kept_records
    from lifecycle.record.tracking import TrackingDownError

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
