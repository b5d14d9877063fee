"""The one wrapper round every stage, under DVC, under Kubeflow and by hand.

It checks the inputs, reads the parameters, gives every out a temporary path, calls the function, renames
the outs into place only when all are whole, and keeps the record.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifecycle.closure import PACKAGES, code_digest
from lifecycle.digest import digest
from lifecycle.graph import load_stage, load_stages, producers
from lifecycle.params import load_sections, read_stage_params
from lifecycle.stage import Artifact, Input, Output, Scratch, Stage
from lifecycle.telemetry import switch_off
from lifecycle.workspace import put, staged, workspace


def run_here(name: str) -> None:
    """Run stage `name` in the project that is the working directory, as its line in `dvc.yaml` does."""
    stage = load_stage(name)
    inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
    outputs = {argument: Path(artifact.path) for argument, artifact in stage.outputs.items()}
    run_stage(stage, load_sections(Path("params.yaml")), inputs, outputs)


def run_component(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], params_json: str) -> None:
    """Run stage `name` as a Kubeflow component: argument -> path, all sections of params.yaml as one JSON string.

    Returns when every output is whole and the run is recorded. A user's error ends the process with one
    sentence and exit code 1.
    """
    switch_off()
    try:
        sections = json.loads(params_json)
        run_stage(load_stage(name), sections, _paths(inputs), _paths(outputs))
    except (ValueError, OSError) as error:
        raise SystemExit(sentence(name, error)) from None


def run_stage(
    stage: Stage[Any], sections: Mapping[str, Any], inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> None:
    """Run `stage` with the params in `sections`, reading `inputs` and filling `outputs` (argument -> path).

    Raises what the stage raises; `ValueError` in one sentence for a missing input, a wrong parameter or an
    out that the stage did not write. Whatever happens, a path in `outputs` holds a whole artifact or what it
    held before.
    """
    _check_present(stage, inputs)
    params = read_stage_params(stage, sections)
    found = {argument: digest(path) for argument, path in inputs.items()}
    key = _key(stage, sections, found)
    with workspace(stage.name, key) as place:
        names = {argument: Path(artifact.path).name for argument, artifact in stage.outputs.items()}
        partial = staged(outputs, names, place)
        stage.function(**_arguments(stage, params, inputs, partial, place / "scratch"))
        _check_written(stage, partial)
        for argument, written in partial.items():
            put(written, outputs[argument])


def sentence(name: str, error: BaseException) -> str:
    """What a user reads of an error: one line."""
    return f"stage {name}: {' '.join(str(error).split())}"


def _arguments(
    stage: Stage[Any],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    scratch: Path,
) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(params)
    arguments |= {argument: Input(path) for argument, path in inputs.items()}
    arguments |= {argument: Output(path) for argument, path in outputs.items()}
    if stage.scratch:
        arguments[stage.scratch] = Scratch(scratch)
    if stage.log:
        arguments[stage.log] = _Silent()
    return arguments


class _Silent:
    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def picture(self, name: str, png: bytes) -> None: ...


def _check_present(stage: Stage[Any], inputs: Mapping[str, Path]) -> None:
    for argument, path in inputs.items():
        if not path.exists():
            artifact = stage.inputs[argument]
            raise ValueError(f"input {path} ({argument}) is missing: {_remedy(stage, artifact)}")


def _remedy(stage: Stage[Any], artifact: type[Artifact]) -> str:
    writer = producers(load_stages(stage.module.partition(".")[0])).get(artifact)
    if writer:
        return f"`dvc repro {writer.name}` makes it"
    return f"{artifact.path}.dvc pins it; `make data` builds the demo's, `dvc pull` fetches one from a remote"


def _check_written(stage: Stage[Any], partial: Mapping[str, Path]) -> None:
    for argument, path in partial.items():
        if not path.exists():
            raise ValueError(f"it ended without writing {stage.outputs[argument].path} (argument {argument!r})")


def _key(stage: Stage[Any], sections: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    package = stage.module.partition(".")[0]
    source = Path(sys.modules[stage.module].__file__ or "").resolve()
    code = code_digest(stage.module, source.parents[stage.module.count(".")], {*PACKAGES, package})
    settings = {argument: sections[argument] for argument in stage.params}
    text = json.dumps([settings, dict(inputs), code], sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _paths(paths: Mapping[str, str]) -> dict[str, Path]:
    return {argument: Path(path) for argument, path in paths.items()}
