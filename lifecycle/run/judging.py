"""The verdict anew, from what it is made of: what stands in a registry's tags can be changed by whoever reaches it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import find_artifact, map_producers
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.pinned import Pinned, PinnedState
from lifecycle.declare.registry import Decision
from lifecycle.declare.stage import Model, Stage, Verdict
from lifecycle.registry.pinned import restore
from lifecycle.run.inputs import check_present, verify_inputs
from lifecycle.run.ranks import SilentLog
from lifecycle.run.stage import build_arguments
from lifecycle.workspace.digest import digest, read_pin
from lifecycle.workspace.staging import WORK, make_private


def decide_again(stages: Iterable[Stage[Any]]) -> tuple[Decision, dict[str, str]]:
    """Return what the stage that writes the verdict says now of what lies in the project that is the working directory:
    measurements, ratings, champion, limits in params. Beside it, path -> digest of those that stages measured. Nothing
    is recorded.

    `ValueError` for an input that is missing, damaged, or not what its pin names.
    """
    stages = tuple(stages)
    kind = find_artifact(stages, Verdict)
    stage = map_producers(stages)[kind]
    for artifact in stage.inputs.values():
        if issubclass(artifact, PinnedState) and read_pin(artifact.path, Path()):
            restore(artifact, Path())
    inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
    check_present(stage, inputs)
    digests = {argument: digest(path) for argument, path in inputs.items()}
    verify_inputs(stage, inputs, digests)
    measured = {argument: kind for argument, kind in stage.inputs.items() if not issubclass(kind, Model | Pinned)}
    evidence = {artifact.path: digests[argument] for argument, artifact in measured.items()}
    with tempfile.TemporaryDirectory(dir=make_private(WORK)) as folder:
        outputs = {argument: Path(folder) / argument / Path(out.path).name for argument, out in stage.outputs.items()}
        for path in outputs.values():
            path.parent.mkdir()
        params = read_stage_params(stage, load_sections())
        stage.function(**build_arguments(stage, params, inputs, outputs, Path(folder) / "scratch", SilentLog()))
        verdict = next(outputs[argument] for argument, out in stage.outputs.items() if out is kind)
        return Decision(**json.loads(verdict.read_text(encoding="utf-8"))), evidence
