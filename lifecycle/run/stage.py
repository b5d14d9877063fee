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

from lifecycle.declare.closure import PACKAGES, compute_code_digest
from lifecycle.declare.graph import list_pinned_paths, load_stage, load_stages
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.stage import Exhibit, Input, Metrics, Output, Paths, Scratch, Stage, StepLog
from lifecycle.record.origin import find_project
from lifecycle.record.privacy import disable_telemetry, redact
from lifecycle.record.recording import read_metrics, record_outputs, record_run
from lifecycle.record.timings import take_timings
from lifecycle.run.inputs import check_present, record_written, verify_inputs
from lifecycle.run.ranks import count_ranks, launch_ranks, publish_scratch
from lifecycle.terminal import strip_controls
from lifecycle.workspace.digest import digest
from lifecycle.workspace.staging import move_into_place, open_workspace, reserve_outputs

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def run_here(name: str) -> None:
    """Run stage `name` in the project that is the working directory, as its line in `dvc.yaml` does. A user's error
    ends the process with one sentence and exit code 1."""
    with exit_on_user_errors(name):
        stage = load_stage(name)
        inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
        outputs = {argument: Path(artifact.path) for argument, artifact in stage.outputs.items()}
        run_stage(stage, load_sections(), inputs, outputs)


def run_component(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], params_json: str) -> None:
    """Run stage `name` as a Kubeflow component: argument -> path, all sections of params.yaml as one JSON string.
    A user's error ends the process with one sentence and exit code 1."""
    disable_telemetry()
    with exit_on_user_errors(name):
        sources, targets = ({key: Path(path) for key, path in paths.items()} for paths in (inputs, outputs))
        run_stage(load_stage(name), json.loads(params_json), sources, targets)


def run_stage(
    stage: Stage[Any], sections: Mapping[str, Any], inputs: Paths, outputs: Paths, *, send: bool = True
) -> None:
    """Run a stage, and record the run.

    Whatever happens, a path in `outputs` holds a whole artifact or what it held before.

    Args:
        stage: It is called once, or once a rank.
        sections: Params by section.
        inputs: Argument -> what it reads.
        outputs: Argument -> where it writes.
        send: Whether the run's record goes to MLflow now; else it waits on disk for the next run, or for
            `python -m lifecycle records`.

    Raises:
        ValueError: An input is missing or damaged, a parameter is wrong, or the stage did not write an output.
        Exception: What the stage raises.
    """
    check_present(stage, inputs)
    params = read_stage_params(stage, sections)
    settings = {argument: sections[argument] for argument in stage.params}
    if (processes := count_ranks(stage, settings)) > 1:
        launch_ranks(stage, sections, inputs, outputs, processes=processes, send=send)
        return
    digests = {argument: digest(path) for argument, path in inputs.items()}
    verify_inputs(stage, inputs, digests)
    names = {argument: Path(artifact.path).name for argument, artifact in stage.outputs.items()}
    with (
        open_workspace(stage.name, _compute_key(stage, settings, digests)) as place,
        record_run(stage, settings, inputs, digests, send) as journal,
        reserve_outputs(outputs, names, place) as partial,
    ):
        publish_scratch(place / "scratch")
        stage.function(**build_arguments(stage, params, inputs, partial, place / "scratch", journal))
        _check_written(stage, partial)
        if timings := _take_timings(stage, partial):
            journal.metrics(timings, journal.last_step)
        for argument, written in partial.items():
            move_into_place(written, outputs[argument])
        record_written(outputs, record_outputs(journal, stage, outputs))


def format_error(name: str, error: BaseException) -> str:
    """Return what a user reads of an error: one line, with what to do where that is known."""
    if is_disk_full(error):
        where = getattr(error, "filename", None)
        return (
            f"stage {name}: no space left to write{f' {where}' if where else ''}: free some and run the same again, "
            "nothing that was there is lost"
        )
    return strip_controls(redact(f"stage {name}: {' '.join(str(error).split())}"))


def is_disk_full(error: BaseException) -> bool:
    """Tell a full disk, a quota or a file size limit, also below an error in a library's own words (safetensors)."""
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    return any(
        getattr(link, "errno", None) in DISK_FULL or "No space left on device" in str(link) for link in chain if link
    )


@contextmanager
def exit_on_user_errors(name: str) -> Iterator[None]:
    """End the process with exit code 1 and one sentence if the user can put the error right. Ctrl-C, and SIGTERM by
    which clusters stop a task, end it in order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if isinstance(error, ValueError | OSError) or is_disk_full(error):
            raise SystemExit(format_error(name, error)) from None
        raise


def build_arguments(
    stage: Stage[Any], params: Mapping[str, Any], inputs: Paths, outputs: Paths, scratch: Path, log: StepLog
) -> dict[str, Any]:
    """Return what the function of `stage` is called with."""
    arguments: dict[str, Any] = dict(params)
    arguments |= {argument: Input(path) for argument, path in inputs.items() if argument not in stage.collected}
    arguments |= {argument: Output(path) for argument, path in outputs.items()}
    if stage.scratch:
        arguments[stage.scratch] = Scratch(scratch)
    if stage.log:
        arguments[stage.log] = log
    if stage.collector:
        exhibits = (
            Exhibit(writer.name, writer.description, out, writer.outputs[out], inputs[argument])
            for argument, (writer, out) in stage.collected.items()
        )
        arguments[stage.collector] = stage.collects(tuple(exhibits))
    if stage.registry:
        from lifecycle.registry.registry import MlflowRegistry

        pinned = list_pinned_paths(load_stages(stage.module.partition(".")[0]))
        arguments[stage.registry] = MlflowRegistry.open(find_project(Path.cwd()), pinned, need_lineage=True)
    return arguments


def _check_written(stage: Stage[Any], partial: Paths) -> None:
    for argument, path in partial.items():
        if not path.exists():
            raise ValueError(f"it ended without writing {stage.outputs[argument].path} (argument {argument!r})")
        if issubclass(stage.outputs[argument], Metrics):
            read_metrics(path)


def _take_timings(stage: Stage[Any], partial: Paths) -> dict[str, float]:
    """Take times and memory out of the metrics, so that an equal run writes equal bytes; return them for the record."""
    files = [partial[argument] for argument, artifact in stage.outputs.items() if issubclass(artifact, Metrics)]
    return {key: value for file in files for key, value in take_timings(file).items()}


def _compute_key(stage: Stage[Any], settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    package = stage.module.partition(".")[0]
    source = Path(sys.modules[stage.module].__file__ or "").resolve()
    code = compute_code_digest(stage.module, source.parents[stage.module.count(".")], {*PACKAGES, package})
    text = json.dumps([dict(settings), dict(inputs), code], sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
