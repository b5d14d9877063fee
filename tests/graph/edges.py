"""Stages and edges as each generated file states them, read without the code that wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

CODE, OUTSIDE = "artifacts/code", "artifacts/outside"
Edges = set[tuple[str, str]]
"""(producer or pinned path, consumer)."""


def dvc_edges(document: Mapping[str, Any]) -> Edges:
    """Edges of a dvc.yaml; code and what is outside are none."""
    writers = makers(document)
    stages = {name: stage for name, stage in document["stages"].items() if name not in ("code", "outside")}
    return {
        (_maker(path, writers), name)
        for name, stage in stages.items()
        for path in _paths(stage, "deps")
        if not path.startswith((CODE, OUTSIDE))
    }


def kfp_stages(specification: Mapping[str, Any]) -> set[str]:
    """The names of a compiled pipeline's tasks, without importers."""
    return {_name(task) for task in _tasks(specification).values() if not _is_importer(task)}


def kfp_edges(specification: Mapping[str, Any], made_elsewhere: Mapping[str, str] | None = None) -> Edges:
    """Edges of a compiled pipeline. `made_elsewhere` (path -> stage) resolves what other pipelines make."""
    tasks = _tasks(specification)
    edges = set()
    for task in tasks.values():
        for artifact in task.get("inputs", {}).get("artifacts", {}).values():
            source = _name(tasks[artifact["taskOutputArtifact"]["producerTask"]])
            edges.add((_maker(source, made_elsewhere or {}), _name(task)))
    return edges


def makers(document: Mapping[str, Any]) -> dict[str, str]:
    """Path -> the stage of dvc.yaml that writes it."""
    return {path: name for name, stage in document["stages"].items() for path in _paths(stage, "outs", "metrics")}


def _maker(path: str, makers: Mapping[str, str]) -> str:
    """The stage that writes `path` or a folder round it, else the path."""
    return next((makers[place] for place in (path, *map(str, PurePosixPath(path).parents)) if place in makers), path)


def _paths(stage: Mapping[str, Any], *keys: str) -> Iterable[str]:
    for key in keys:
        for entry in stage.get(key, []):
            yield entry if isinstance(entry, str) else next(iter(entry))


def _tasks(specification: Mapping[str, Any]) -> Mapping[str, Any]:
    return specification["root"]["dag"]["tasks"]


def _name(task: Mapping[str, Any]) -> str:
    return task["taskInfo"]["name"]


def _is_importer(task: Mapping[str, Any]) -> bool:
    return task["componentRef"]["name"].startswith("comp-importer")
