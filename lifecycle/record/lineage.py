"""Where an artifact comes from: the tree of what made it, back to the raw data.

Each step is found by content: the digest of the artifact names the run that wrote it, and that run's inputs
name theirs. So it does not matter whether a stage ran just now or its outs came out of DVC's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle.declare.graph import find_artifacts, list_pinned_paths
from lifecycle.declare.stage import Artifact, Stage
from lifecycle.record.origin import find_project
from lifecycle.record.sender import send_kept_records
from lifecycle.record.tracking import open_tracking
from lifecycle.workspace.digest import digest, read_locked_digest, read_pin

if TYPE_CHECKING:
    from lifecycle.record.runs import ProducerRun

FindProducer = Callable[[str, str], "ProducerRun | None"]
"""(path, digest) -> the run that wrote it; `Tracking.find_producer`."""


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact's content, the run that wrote it (None: none is recorded), and what that run read."""

    path: str
    digest: str
    run: ProducerRun | None
    inputs: tuple[Node, ...]


def describe_lineage(place: Path, root: Path, stages: Iterable[Stage[Any]]) -> str:
    """Return the lineage of the artifact that `place` is, or lies in, as text; `ValueError` if none is recorded."""
    stages = tuple(stages)
    pinned = list_pinned_paths(stages)
    artifact = find_artifact_at(place, root, stages)
    content = find_digest(artifact, root)
    project = find_project(root)
    send_kept_records(project)
    tree = trace_lineage(artifact.path, content, open_tracking(project).find_producer)
    if tree.run is None and artifact.path not in pinned:
        raise ValueError(
            f"no run is recorded that wrote {artifact.path} with digest {content}: "
            "`dvc repro --force` on its stage records one"
        )
    return "\n".join(format_lineage(tree, pinned))


def trace_lineage(path: str, content: str, find_producer: FindProducer) -> Node:
    """Return the tree of artifact `path` with digest `content`; a node that several read is one object."""
    nodes: dict[tuple[str, str], Node] = {}

    def build(path: str, content: str) -> Node:
        if (path, content) not in nodes:
            run = find_producer(path, content)
            inputs = tuple(build(*read) for read in sorted(run.inputs.items())) if run else ()
            nodes[path, content] = Node(path, content, run, inputs)
        return nodes[path, content]

    return build(path, content)


def walk(*roots: Node, until: Container[str] = ()) -> Iterator[Node]:
    """Yield the nodes and all that led to them, each once; not what led to an artifact of `until`."""
    waiting, seen = list(roots), set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += () if node.path in until else node.inputs


def find_parents(node: Node, paths: Iterable[str], pinned: Container[str]) -> dict[str, str] | None:
    """Return the nearest artifacts among `paths` that led to the node: path -> digest. None where the record has a gap
    before it comes to them: something that is not pinned, and no run is recorded that made it.

    `ValueError` if one path led to it with two contents.
    """
    targets, parents = frozenset(paths), dict[str, str]()
    if node.run is None:
        return None
    for source in walk(*node.inputs, until=targets):
        if source.path in targets:
            if (other := parents.setdefault(source.path, source.digest)) != source.digest:
                raise ValueError(f"{node.path} was made from two contents of {source.path}: {other}, {source.digest}")
        elif source.run is None and source.path not in pinned:
            return None
    return parents


def format_lineage(node: Node, pinned: Container[str]) -> list[str]:
    """Return the tree as text, one line an artifact: path, digest, stage and run. Repeated subtrees stand once."""
    return list(_format_subtree(node, pinned, set(), "", ""))


def _format_subtree(node: Node, pinned: Container[str], seen: set[int], first: str, rest: str) -> Iterator[str]:
    repeated = id(node) in seen and bool(node.inputs)
    seen.add(id(node))
    if node.run:
        origin = f"{node.run.stage}  run {node.run.run_id}" + ("  (as above)" if repeated else "")
    elif node.path in pinned:
        origin = f"raw data, pinned by {node.path}.dvc"
    else:
        origin = "no run recorded"
    yield f"{first}{node.path}  {node.digest}  {origin}"
    for child in () if repeated else node.inputs:
        branch, line = ("└─ ", "   ") if child is node.inputs[-1] else ("├─ ", "│  ")
        yield from _format_subtree(child, pinned, seen, rest + branch, rest + line)


def find_artifact_at(place: Path, root: Path, stages: Iterable[Stage[Any]]) -> type[Artifact]:
    """Return the artifact that `place` is, or lies in; `ValueError` if no stage knows it."""
    inside, artifacts = (root / place).resolve(), find_artifacts(stages, Artifact)
    for artifact in artifacts:
        if inside.is_relative_to((root / artifact.path).resolve()):
            return artifact
    paths = ", ".join(artifact.path for artifact in artifacts)
    raise ValueError(f"{place} is no artifact of any stage: the artifacts are {paths}")


def find_digest(artifact: type[Artifact], root: Path) -> str:
    """Return the digest of the artifact as it lies here, or else as dvc.lock or its .dvc file names it."""
    if (root / artifact.path).exists():
        return digest(root / artifact.path)
    if locked := read_pin(artifact.path, root) or read_locked_digest(artifact.path, root):
        return locked
    raise ValueError(f"{artifact.path} does not exist and dvc.lock does not name it: `dvc repro` makes it")
