"""The stages of a package as one checked, ordered graph."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from lifecycle.declare.stage import Artifact, Stage


def load_stage(name: str, package: str = "components") -> Stage[Any]:
    """The stage `name`, declared in `<package>/<name>.py`; no other stage is imported."""
    known = stage_names(package)
    if name not in known:
        raise ValueError(f"no stage {name!r}: {package}/ has {', '.join(known)}")
    declared = getattr(importlib.import_module(f"{package}.{name}"), name, None)
    if not isinstance(declared, Stage):
        raise TypeError(f"{package}/{name}.py must declare its stage as `@stage() def {name}(...)`")
    return declared


def stage_names(package: str = "components") -> list[str]:
    """One stage a module of the package, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def load_stages(package: str = "components") -> tuple[Stage[Any], ...]:
    """Every stage of the package, producers before consumers."""
    return ordered(load_stage(name, package) for name in stage_names(package))


def producers(stages: Iterable[Stage[Any]]) -> dict[type[Artifact], Stage[Any]]:
    """Artifact -> the stage that writes it; two writers of one path, or of a path within, are a `TypeError`."""
    by_path: dict[str, Stage[Any]] = {}
    found: dict[type[Artifact], Stage[Any]] = {}
    for stage in stages:
        for artifact in stage.outputs.values():
            if artifact.path in by_path:
                raise TypeError(f"{artifact.path} has two producers: {by_path[artifact.path].name} and {stage.name}")
            by_path[artifact.path] = found[artifact] = stage
    for path, stage in by_path.items():
        for outer in map(str, PurePosixPath(path).parents):
            if outer in by_path:
                raise TypeError(f"{path} of {stage.name} lies in {outer} of {by_path[outer].name}: move one")
    return found


def ordered(stages: Iterable[Stage[Any]]) -> tuple[Stage[Any], ...]:
    """The stages, producers before consumers, ties by name.

    Raises `TypeError` for an artifact with two producers, a read that nobody writes, and a cycle.
    """
    by_name = {stage.name: stage for stage in sorted(stages, key=lambda stage: stage.name)}
    writer = producers(by_name.values())
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for stage in by_name.values():
        before = set()
        for argument, artifact in stage.inputs.items():
            if artifact in writer:
                before.add(writer[artifact].name)
            elif not artifact.pinned:
                raise TypeError(f"stage {stage.name} reads {artifact.path} ({argument}), which no stage writes")
        sorter.add(stage.name, *sorted(before))
    try:
        return tuple(by_name[name] for name in sorter.static_order())
    except CycleError as error:
        raise TypeError(f"the stages form a cycle: {' -> '.join(error.args[1])}") from None
