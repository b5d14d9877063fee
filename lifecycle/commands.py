"""What the commands of `python -m lifecycle` do in the project that is the working directory, and print.

`ValueError` in one sentence for what a user can put right.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from lifecycle.declare.graph import find_artifact, find_composite, list_pinned_paths, load_stages
from lifecycle.declare.pinned import PinnedChampion
from lifecycle.record.lineage import describe_lineage
from lifecycle.record.origin import find_project
from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import relocate_store
from lifecycle.registry import pinned
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.registry.versions import require_name
from lifecycle.summary import summarize
from lifecycle.terminal import print_plain

Command = Callable[..., None]


def print_stages() -> None:
    stages = load_stages()
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        print(f"{stage.name:{width}}  {stage.summary}")


def print_summary() -> None:
    print_plain(summarize(load_stages(), Path.cwd()))


def print_lineage(path: Path) -> None:
    print_plain(describe_lineage(path, Path.cwd(), load_stages()))


def promote(why: str) -> None:
    from lifecycle.run.judging import decide_again

    registry, name = _open_registry()
    version = registry.read_candidate(name)
    decision, evidence = decide_again(load_stages())
    move = registry.promote(version, decision, why, evidence=evidence, again=True)
    print_plain(f"{name} version {move.after} is champion, version {move.before or 'none'} was; {move.who}: {move.why}")


def rollback(why: str) -> None:
    registry, name = _open_registry()
    move = registry.rollback(name, why)
    print_plain(f"{name} version {move.after} is champion again, version {move.before} was; {move.who}: {move.why}")


def champion(action: str) -> None:
    registry, name = _open_registry()
    if action == "pull":
        kind = find_artifact(load_stages(), PinnedChampion)
        version = pinned.pull_champion(registry, name, kind, Path.cwd())
        content = f"version {version} of {name}" if version else f"no champion of {name}"
        print(f"{kind.path}/ holds {content}; commit {kind.path}.dvc with what you make from it")
    else:
        moves = registry.read_history(name)
        lines = [f"{move.when}  {move.kind:8}  {move.before} -> {move.after}  {move.who}: {move.why}" for move in moves]
        print_plain("\n".join(lines) or f"{name} never had a champion")


def _open_registry() -> tuple[MlflowRegistry, str]:
    """Return the registry, and the composite's name in it."""
    stages = load_stages()
    name = require_name(find_composite(stages))
    return MlflowRegistry.open(find_project(Path.cwd()), list_pinned_paths(stages)), name


def rate(raters: Sequence[str]) -> None:
    from lifecycle.ratings.ratings import serve_packet

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with us
    try:
        with serve_packet(Path.cwd(), load_stages(), raters) as queues:
            for queue in queues:
                print(f"{queue.rater}: {' '.join(queue.pages)}")
            secrets = ".mlflow/rating/secrets.json"
            print(f"Passwords are in {secrets}, for you alone. Ctrl-C ends; all answers stay.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return


def ratings(action: str) -> None:
    from lifecycle.ratings.ratings import pull_ratings, update_feedback

    root, stages = Path.cwd(), load_stages()
    print_plain("\n".join(pull_ratings(root, stages)) if action == "pull" else update_feedback(root, stages))


def restore_inputs() -> None:
    for line in pinned.restore_inputs(load_stages(), Path.cwd()):
        print_plain(line)


def send_records() -> None:
    sent, kept = send_kept_records(find_project(Path.cwd()))
    print(f"{sent} sent, {kept} still here")


def relocate() -> None:
    relocate_store(find_project(Path.cwd()))
