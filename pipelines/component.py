"""What runs inside a Kubeflow task: the stage's wrapper, then its numbers for the dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.declare.skipping import SKIPPED, read_skip_reason
from lifecycle.record.recording import NOTES, read_metrics, read_notes
from lifecycle.run.stage import run_component

if TYPE_CHECKING:
    from kfp import dsl


def run_task(
    stage: str, inputs: Mapping[str, dsl.Artifact], outputs: Mapping[str, dsl.Artifact], sections: Mapping[str, str]
) -> None:
    """Run `stage` on a task's artifacts; `sections` maps each params section to its JSON text."""
    from kfp import dsl

    run_component(
        stage,
        {argument: artifact.path for argument, artifact in inputs.items()},
        {argument: artifact.path for argument, artifact in outputs.items()},
        json.dumps({name: json.loads(text) for name, text in sections.items()}),
    )
    for artifact in outputs.values():
        if isinstance(artifact, dsl.Metrics):
            for key, value in read_metrics(Path(artifact.path)).items():
                artifact.log_metric(key, value)
            if reason := read_skip_reason(Path(artifact.path)):
                artifact.metadata[SKIPPED] = reason
            if notes := read_notes(Path(artifact.path)):
                artifact.metadata[NOTES] = "; ".join(notes)
