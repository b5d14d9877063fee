"""Where an artifact comes from: the tree of what made it, back to the raw data.

Each step is found by content: the digest of the artifact names the run that wrote it, and that run's inputs
name theirs. So it does not matter whether a stage ran just now or its outs came out of DVC's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from lifecycle.declare.stage import Artifact, Stage
from lifecycle.workspace.digest import digest

if TYPE_CHECKING:
    from lifecycle.record.runs import Made

Find = Callable[[str, str], "Made | None"]
"""(path, digest) -> the run that wrote it; `Tracking.made`."""


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact's content, the run that wrote it (None: none is recorded), and what that run read."""

    path: str
    digest: str
    made: Made | None
    inputs: tuple[Node, ...]


def lineage(path: str, content: str, find: Find) -> Node:
    """The tree of artifact `path` with digest `content`; a node that several read is one object."""
    known: dict[tuple[str, str], Node] = {}

    def node(path: str, content: str) -> Node:
        if (path, content) not in known:
            made = find(path, content)
            inputs = tuple(node(*read) for read in sorted(made.inputs.items())) if made else ()
            known[path, content] = Node(path, content, made, inputs)
        return known[path, content]

    return node(path, content)


def nodes(node: Node) -> list[Node]:
    """The node and all that led to it, each once."""
    found: dict[int, Node] = {}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            found[id(one)] = one
            waiting += one.inputs
    return list(found.values())


def parents(node: Node, paths: Iterable[str], pinned: Iterable[str]) -> dict[str, str] | None:
    """The nearest artifacts among `paths` that led to the node: path -> digest. None where the record has a gap
    before it comes to them: something that is not pinned, and no run is recorded that made it.

    `ValueError` if one path led to it with two contents.
    """
    wanted, raw, found = frozenset(paths), frozenset(pinned), dict[str, str]()
    if node.made is None:
        return None
    waiting, seen = list(node.inputs), set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.path in wanted:
            if found.setdefault(one.path, one.digest) != one.digest:
                raise ValueError(
                    f"{node.path} was made from two contents of {one.path}: {found[one.path]}, {one.digest}"
                )
        elif one.made is None and one.path not in raw:
            return None
        else:
            waiting += one.inputs
    return found


def lines(node: Node, pinned: Iterable[str]) -> list[str]:
    """The tree as text, one line an artifact: path, digest, stage and run. Repeated subtrees stand once."""
    return list(_lines(node, frozenset(pinned), set(), "", ""))


def _lines(node: Node, pinned: frozenset[str], seen: set[int], first: str, rest: str) -> Iterator[str]:
    again = id(node) in seen and bool(node.inputs)
    seen.add(id(node))
    if node.made:
        origin = f"{node.made.stage}  run {node.made.run_id}" + ("  (as above)" if again else "")
    elif node.path in pinned:
        origin = f"raw data, pinned by {node.path}.dvc"
    else:
        origin = "no run recorded"
    yield f"{first}{node.path}  {node.digest}  {origin}"
    for child in () if again else node.inputs:
        last = child is node.inputs[-1]
        yield from _lines(child, pinned, seen, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def artifact_at(place: Path, root: Path, stages: Iterable[Stage[Any]]) -> type[Artifact]:
    """The artifact that `place` is, or lies in; `ValueError` if no stage knows it."""
    known = {
        artifact.path: artifact for stage in stages for artifact in (*stage.outputs.values(), *stage.inputs.values())
    }
    inside = (root / place).resolve()
    for path, artifact in known.items():
        if inside.is_relative_to((root / path).resolve()):
            return artifact
    raise ValueError(f"{place} is no artifact of any stage: the artifacts are {', '.join(sorted(known))}")


def content_of(artifact: type[Artifact], root: Path) -> str:
    """The digest of the artifact as it lies here, or else as dvc.lock or its .dvc file names it."""
    if (root / artifact.path).exists():
        return digest(root / artifact.path)
    if found := _named_by_dvc(artifact.path, root):
        return found
    raise ValueError(f"{artifact.path} does not exist and dvc.lock does not name it: `dvc repro` makes it")


def _named_by_dvc(path: str, root: Path) -> str | None:
    pin = root / f"{path}.dvc"
    if pin.is_file():
        return str(_yaml(pin)["outs"][0]["md5"])
    lock = root / "dvc.lock"
    stages = _yaml(lock)["stages"].values() if lock.is_file() else ()
    outs = (out for stage in stages for out in stage.get("outs", ()))
    return next((str(out["md5"]) for out in outs if PurePosixPath(out["path"]) == PurePosixPath(path)), None)


def _yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
