"""The stages of a package as one checked, ordered graph."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any, TypeVar

from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import DECLARATIONS, Artifact, Model, Stage

A = TypeVar("A", bound=Artifact)


def load_stage(name: str, package: str = "components") -> Stage[Any]:
    """Load the stage declared in `<package>/<name>.py`; others are imported only if it collects from them."""
    stage = _import_stage(name, package)
    return stage if stage.collector is None else next(stage for stage in load_stages(package) if stage.name == name)


def list_stage_names(package: str = "components") -> list[str]:
    """Return the names of the package's stages, one a module, sorted."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in modules if module.name != DECLARATIONS)


def load_stages(package: str = "components") -> tuple[Stage[Any], ...]:
    """Load every stage of the package, producers before consumers."""
    return order_stages(_import_stage(name, package) for name in list_stage_names(package))


def find_artifacts(stages: Iterable[Stage[Any]], kind: type[A]) -> list[type[A]]:
    """Return the artifacts of this kind that the stages read or write, by path."""
    artifacts = {artifact for stage in stages for artifact in (*stage.inputs.values(), *stage.outputs.values())}
    matching = [artifact for artifact in artifacts if issubclass(artifact, kind)]
    return sorted(matching, key=lambda artifact: artifact.path)


def find_artifact(stages: Iterable[Stage[Any]], kind: type[A]) -> type[A]:
    """Return the only artifact of this kind; `ValueError` if there is none, or more."""
    return _check_single(find_artifacts(stages, kind), kind.__name__)


def find_composite(stages: Iterable[Stage[Any]]) -> type[Model]:
    """Return the model that is made of the others; `ValueError` if there is none, or more."""
    composites = [model for model in find_artifacts(stages, Model) if model.composite]
    return _check_single(composites, "Model with `composite = True`")


def list_pinned_paths(stages: Iterable[Stage[Any]]) -> tuple[str, ...]:
    """Return the paths of what no stage writes."""
    return tuple(artifact.path for artifact in find_artifacts(stages, Pinned))


def map_producers(stages: Iterable[Stage[Any]]) -> dict[type[Artifact], Stage[Any]]:
    """Return artifact -> the stage that writes it; two writers of one path, or of a path within, are a `TypeError`."""
    by_path: dict[str, Stage[Any]] = {}
    by_artifact: dict[type[Artifact], Stage[Any]] = {}
    for stage in stages:
        for artifact in stage.outputs.values():
            if artifact.path in by_path:
                raise TypeError(f"{artifact.path} has two producers: {by_path[artifact.path].name} and {stage.name}")
            by_path[artifact.path] = by_artifact[artifact] = stage
    for path, stage in by_path.items():
        for outer in map(str, PurePosixPath(path).parents):
            if outer in by_path:
                raise TypeError(f"{path} of {stage.name} lies in {outer} of {by_path[outer].name}: move one")
    return by_artifact


def order_stages(stages: Iterable[Stage[Any]]) -> tuple[Stage[Any], ...]:
    """Return the stages, producers before consumers, ties by name, with what they collect among their inputs.

    Raises `TypeError` for an artifact with two producers, a read that nobody writes, and a cycle.
    """
    order = _sort(stages)
    if all(stage.collector is None for stage in order):
        return order
    return _sort(stage if stage.collector is None else _add_collected(stage, order) for stage in order)


def _sort(stages: Iterable[Stage[Any]]) -> tuple[Stage[Any], ...]:
    by_name = {stage.name: stage for stage in sorted(stages, key=lambda stage: stage.name)}
    writer = map_producers(by_name.values())
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for stage in by_name.values():
        before = set()
        for argument, artifact in stage.inputs.items():
            if artifact in writer:
                before.add(writer[artifact].name)
            elif not issubclass(artifact, Pinned):
                raise TypeError(f"stage {stage.name} reads {artifact.path} ({argument}), which no stage writes")
        sorter.add(stage.name, *sorted(before))
    try:
        return tuple(by_name[name] for name in sorter.static_order())
    except CycleError as error:
        raise TypeError(f"the stages form a cycle: {' -> '.join(error.args[1])}") from None


def _add_collected(collector: Stage[Any], order: tuple[Stage[Any], ...]) -> Stage[Any]:
    """Add an input `<stage>__<argument>` for each output of `order` that the stage collects and that does not depend on
    the stage."""
    writer, after = map_producers(order), {collector.name}
    collected: dict[str, tuple[Stage[Any], str]] = {}
    for stage in order:
        if any(artifact in writer and writer[artifact].name in after for artifact in stage.inputs.values()):
            after.add(stage.name)
        elif stage.collector is None and stage.pipeline == collector.pipeline:
            for argument, artifact in stage.outputs.items():
                if issubclass(artifact, collector.collects.kinds) and getattr(artifact, "registered", True) is not None:
                    collected[f"{stage.name}__{argument}"] = stage, argument
    inputs = {name: stage.outputs[argument] for name, (stage, argument) in collected.items()}
    return replace(collector, inputs={**collector.inputs, **inputs}, collected=collected)


def _import_stage(name: str, package: str) -> Stage[Any]:
    names = list_stage_names(package)
    if name not in names:
        raise ValueError(f"no stage {name!r}: {package}/ has {', '.join(names)}")
    stage = getattr(importlib.import_module(f"{package}.{name}"), name, None)
    if not isinstance(stage, Stage):
        raise TypeError(f"{package}/{name}.py must declare its stage as `@stage() def {name}(...)`")
    return stage


def _check_single(artifacts: list[type[A]], what: str) -> type[A]:
    if len(artifacts) != 1:
        paths = ", ".join(artifact.path for artifact in artifacts) or "none"
        raise ValueError(f"the stages must have one {what}, and have {paths}")
    return artifacts[0]
