"""The one wrapper round every stage, under DVC, under Kubeflow and by hand.

It checks the inputs, reads the parameters, gives every out a temporary path, calls the function, renames
the outs into place only when all are whole, and keeps the record.
"""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifecycle.declare.closure import PACKAGES, code_digest
from lifecycle.declare.graph import load_stage, load_stages, pinned_paths, producers
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.stage import Artifact, Collected, Exhibit, Input, Metrics, Output, Scratch, Stage, StepLog
from lifecycle.record.origin import home
from lifecycle.record.recording import numbers, record_outputs, recorded
from lifecycle.record.redaction import redacted
from lifecycle.record.telemetry import switch_off
from lifecycle.run import ranks
from lifecycle.workspace.digest import digest
from lifecycle.workspace.staging import put, staged, workspace

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def run_here(name: str) -> None:
    """Run stage `name` in the project that is the working directory, as its line in `dvc.yaml` does.

    A user's error ends the process with one sentence and exit code 1.
    """
    with user_errors(name):
        stage = load_stage(name)
        inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
        outputs = {argument: Path(artifact.path) for argument, artifact in stage.outputs.items()}
        run_stage(stage, load_sections(), inputs, outputs)


def run_component(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], params_json: str) -> None:
    """Run stage `name` as a Kubeflow component: argument -> path, all sections of params.yaml as one JSON string.

    Returns when every output is whole and the run is recorded. A user's error ends the process with one
    sentence and exit code 1.
    """
    switch_off()
    with user_errors(name):
        run_stage(load_stage(name), json.loads(params_json), _paths(inputs), _paths(outputs))


def run_stage(
    stage: Stage[Any],
    sections: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    send: bool = True,
) -> None:
    """Run `stage` with the params in `sections`, reading `inputs` and filling `outputs` (argument -> path).

    Raises what the stage raises; `ValueError` in one sentence for a missing input, a wrong parameter or an
    out that the stage did not write. Whatever happens, a path in `outputs` holds a whole artifact or what it
    held before. Without `send` the run's record waits on disk for the next run, or for
    `python -m lifecycle records`.
    """
    _check_present(stage, inputs)
    params = read_stage_params(stage, sections)
    settings = {argument: sections[argument] for argument in stage.params}
    if (processes := ranks.wanted(stage, settings)) > 1:
        ranks.launch(stage, sections, inputs, outputs, processes=processes, send=send)
        return
    digests = {argument: digest(path) for argument, path in inputs.items()}
    names = {argument: Path(artifact.path).name for argument, artifact in stage.outputs.items()}
    with (
        workspace(stage.name, _key(stage, settings, digests)) as place,
        recorded(stage, settings, inputs, digests, send) as journal,
        staged(outputs, names, place) as partial,
    ):
        ranks.announce(place / "scratch")
        stage.function(**arguments_of(stage, params, inputs, partial, place / "scratch", journal))
        _check_written(stage, partial)
        for argument, written in partial.items():
            put(written, outputs[argument])
        record_outputs(journal, stage, outputs)


def sentence(name: str, error: BaseException) -> str:
    """What a user reads of an error: one line, with what to do where that is known."""
    if disk_is_full(error):
        where = getattr(error, "filename", None)
        return (
            f"stage {name}: no space left to write{f' {where}' if where else ''}: free some and run the same again, "
            "nothing that was there is lost"
        )
    return redacted(f"stage {name}: {' '.join(str(error).split())}")


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk, a quota or a file size limit is what went wrong, also below an error of a library that
    words it its own way (safetensors)."""
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    return any(
        getattr(link, "errno", None) in DISK_FULL or "No space left on device" in str(link) for link in chain if link
    )


@contextmanager
def user_errors(name: str) -> Iterator[None]:
    """End the process with exit code 1 and one sentence if the user can put the error right. Ctrl-C, and SIGTERM by
    which clusters stop a task, end it in order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if isinstance(error, ValueError | OSError) or disk_is_full(error):
            raise SystemExit(sentence(name, error)) from None
        raise


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def arguments_of(
    stage: Stage[Any],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    scratch: Path,
    log: StepLog,
) -> dict[str, Any]:
    """What the function of `stage` is called with."""
    arguments: dict[str, Any] = dict(params)
    arguments |= {argument: Input(path) for argument, path in inputs.items() if argument not in stage.collected}
    arguments |= {argument: Output(path) for argument, path in outputs.items()}
    if stage.scratch:
        arguments[stage.scratch] = Scratch(scratch)
    if stage.log:
        arguments[stage.log] = log
    if stage.collector:
        made = {argument: (writer, out, inputs[argument]) for argument, (writer, out) in stage.collected.items()}
        arguments[stage.collector] = Collected(
            tuple(
                Exhibit(writer.name, writer.description, out, writer.outputs[out], path)
                for writer, out, path in made.values()
            )
        )
    if stage.registry:
        from lifecycle.registry.registry import MlflowRegistry

        pinned = pinned_paths(load_stages(stage.module.partition(".")[0]))
        arguments[stage.registry] = MlflowRegistry.open(home(Path.cwd()), pinned)
    return arguments


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
        if issubclass(stage.outputs[argument], Metrics):
            numbers(path)


def _key(stage: Stage[Any], settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    package = stage.module.partition(".")[0]
    source = Path(sys.modules[stage.module].__file__ or "").resolve()
    code = code_digest(stage.module, source.parents[stage.module.count(".")], {*PACKAGES, package})
    text = json.dumps([dict(settings), dict(inputs), code], sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _paths(paths: Mapping[str, str]) -> dict[str, Path]:
    return {argument: Path(path) for argument, path in paths.items()}
