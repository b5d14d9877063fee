"""What the last run left behind, for whoever ran it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lifecycle.catalog import Index
from lifecycle.declare.stage import Artifact, Metrics, Stage
from lifecycle.record.recording import numbers

FIGURES = 4
"""How many numbers of a Metrics file are shown; the report has them all."""


def summary(stages: Iterable[Stage[Any]], root: Path) -> str:
    """What each stage wrote, how large, with its first figures; where the report is, and how to see the runs."""
    lines = [line for stage in stages for line in _stage_lines(stage, root)]
    if (root / Index.path).exists():
        lines += ["", f"Report: {root / Index.path}"]
    return "\n".join([*lines, "Runs:   make ui"])


def _stage_lines(stage: Stage[Any], root: Path) -> Iterator[str]:
    yield f"{stage.name}: {stage.summary}"
    for artifact in stage.outputs.values():
        path = root / artifact.path
        yield f"    {artifact.path:32} {_describe(artifact, path) if path.exists() else 'not made yet'}"


def _describe(artifact: type[Artifact], path: Path) -> str:
    if issubclass(artifact, Metrics):
        return ", ".join(f"{key} {value:g}" for key, value in list(numbers(path).items())[:FIGURES])
    return readable_size(sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path])))


def readable_size(size: int) -> str:
    """`size` bytes in the unit that keeps it short."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
