"""What the last run left behind, on one screen, for whoever ran it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import find_artifacts
from lifecycle.declare.stage import Headline, Model, Report, Stage, Verdict
from lifecycle.record.recording import read_metrics

REASONS = 5  # of a verdict that are listed; the report has them all


def summarize(stages: Iterable[Stage[Any]], root: Path) -> str:
    """Return the verdict, the headline, which stages have not run, where the collected report is, and what to do."""
    stages = tuple(stages)
    lines = [line for verdict in find_artifacts(stages, Verdict) for line in _format_verdict(root / verdict.path)]
    for headline in find_artifacts(stages, Headline):
        if (path := root / headline.path).exists():
            lines += [f"  {line}" for line in headline.format_summary(read_metrics(path))]
    if missing := [stage.name for stage in stages if stage.pipeline == "train" and not _is_complete(stage, root)]:
        lines.append(f"Not run: {', '.join(missing)}")
    outputs = [artifact for stage in stages if stage.collector for artifact in stage.outputs.values()]
    reports = [root / artifact.path for artifact in outputs if issubclass(artifact, Report)]
    lines += [f"Report:  {path}" for path in reports if path.exists()]
    lines.append("Runs:    make ui")
    models = [model for model in find_artifacts(stages, Model) if model.example and (root / model.path).exists()]
    return "\n".join([*lines, *(f"Try it:  {model.example}" for model in models)])


def _format_verdict(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    decision = json.loads(path.read_text(encoding="utf-8"))
    yield f"Verdict: {decision['outcome']}"
    reasons = decision["reasons"]
    yield from (f"  - {reason}" for reason in reasons[:REASONS])
    if len(reasons) > REASONS:
        yield f"  and {len(reasons) - REASONS} more"


def _is_complete(stage: Stage[Any], root: Path) -> bool:
    return all((root / artifact.path).exists() for artifact in stage.outputs.values())
