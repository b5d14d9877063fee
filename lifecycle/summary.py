"""What the last run left behind, on one screen, for whoever ran it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import artifacts_of
from lifecycle.declare.stage import Metrics, Model, Report, Stage, Verdict
from lifecycle.record.recording import numbers

REASONS = 5
"""How many of a verdict's reasons are listed; the report has them all."""


def summarize(stages: Iterable[Stage[Any]], root: Path) -> str:
    """The verdict, the headline figures, which stages have not run, where the report is, and what to do next.

    Headline and report are the Metrics and the Report of the stage that collects from all others.
    """
    stages = tuple(stages)
    shown = [artifact for stage in stages if stage.collector for artifact in stage.outputs.values()]
    lines = [line for verdict in artifacts_of(stages, Verdict) for line in _verdict(root / verdict.path)]
    headlines = [root / artifact.path for artifact in shown if issubclass(artifact, Metrics)]
    for name, value in (item for path in headlines if path.exists() for item in numbers(path).items()):
        lines.append(f"  {name.replace('_', ' '):44} {value:,.4g}")
    if missing := [stage.name for stage in stages if stage.pipeline == "train" and not _complete(stage, root)]:
        lines.append(f"Not run: {', '.join(missing)}")
    reports = [root / artifact.path for artifact in shown if issubclass(artifact, Report)]
    lines += [f"Report:  {path}" for path in reports if path.exists()]
    lines.append("Runs:    make ui")
    models = [model for model in artifacts_of(stages, Model) if model.example and (root / model.path).exists()]
    return "\n".join([*lines, *(f"Try it:  {model.example}" for model in models)])


def _verdict(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    decision = json.loads(path.read_text(encoding="utf-8"))
    yield f"Verdict: {decision['outcome']}"
    reasons = decision["reasons"]
    yield from (f"  - {reason}" for reason in reasons[:REASONS])
    if len(reasons) > REASONS:
        yield f"  and {len(reasons) - REASONS} more"


def _complete(stage: Stage[Any], root: Path) -> bool:
    return all((root / artifact.path).exists() for artifact in stage.outputs.values())
