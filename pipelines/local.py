"""The compiled Kubeflow pipeline on this machine, without Docker: each task is a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import Artifact, Metrics, Pipeline, Stage
from lifecycle.record.recording import read_metrics
from pipelines.emit_kfp import build_arguments, list_imports
from pipelines.project import COMPILED, load_checked_sections

PLACE = Path(".work/kfp_local")


def run_local(root: Path, stages: Sequence[Stage[Any]], profile: str, pipeline: Pipeline = "train") -> Path:
    """Run `compiled/<pipeline>.yaml` with the profile's parameters; returns the directory of its tasks' outputs.

    `promote` reads the outputs of the last local run of `train`, or without one those of DVC. The
    outputs of an earlier run of the same pipeline are removed first. `ValueError` for a missing input,
    `RuntimeError` naming the task for one that failed (its own message stands above it).
    """
    from kfp import components, local

    pipeline_stages = [stage for stage in stages if stage.pipeline == pipeline]
    if not pipeline_stages:
        raise ValueError(f"pipeline {pipeline!r} has no stages")
    place = root / PLACE
    train_run = next(place.glob("canvas-train-*"), None) if pipeline != "train" else None
    uris = _find_local_uris(root, pipeline_stages, _find_outputs(train_run, stages) if train_run else {})
    arguments = build_arguments(pipeline_stages, load_checked_sections(root, profile, stages), uris)
    for earlier in place.glob(f"canvas-{pipeline}-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    # A task that finds its inputs and outputs by URI needs no workspace, but without one kfp leaves a new
    # directory in /tmp; the run's name makes its tasks children of one record.
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(place), workspace_root=str(place / "workspace")
    )
    os.environ["CANVAS_RUN"] = f"kfp-local {profile} {datetime.now():%Y-%m-%d %H:%M:%S}"
    with warnings.catch_warnings():  # images, resources and accelerators mean nothing here
        warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom or non-Python")
        warnings.filterwarnings("ignore", message="Task '.*': settings .* have no effect in the current local runner")
        run = components.load_component_from_text(_remove_retries(root / COMPILED / f"{pipeline}.yaml"))
        try:
            run(**arguments)
        except RuntimeError as error:
            raise RuntimeError(re.sub(r"\x1b\[\d+m", "", str(error))) from None  # kfp colours its messages
    return next(place.glob(f"canvas-{pipeline}-*"))


def list_outputs(folder: Path, stages: Sequence[Stage[Any]]) -> Iterator[str]:
    """Yield a line on each output of a local run: stage, artifact, size, and how many numbers a metrics file has."""
    for artifact, (stage, path) in _find_outputs(folder, stages).items():
        note = f", {len(read_metrics(path))} numbers" if issubclass(artifact, Metrics) else ""
        yield f"{stage:20} {artifact.path:32} {_count_bytes(path):>12,} bytes{note}"


def _remove_retries(compiled: Path) -> str:
    """A cluster's retries, minutes apart, help against lost nodes; here they would only delay the error."""
    specification, *platform = yaml.safe_load_all(compiled.read_text(encoding="utf-8"))
    for task in specification["root"]["dag"]["tasks"].values():
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all([specification, *platform], sort_keys=False)


def _find_outputs(folder: Path, stages: Sequence[Stage[Any]]) -> dict[type[Artifact], tuple[str, Path]]:
    """Return artifact -> stage and place, of what a local run wrote."""
    return {
        artifact: (stage.name, path)
        for stage in stages
        for argument, artifact in stage.outputs.items()
        if (path := folder / stage.name.replace("_", "-") / argument).exists()
    }


def _find_local_uris(
    root: Path, stages: Sequence[Stage[Any]], outputs: Mapping[type[Artifact], tuple[str, Path]]
) -> dict[str, str]:
    uris = {}
    for name, artifact in list_imports(stages).items():
        _, path = outputs.get(artifact, ("", root / artifact.path))
        if not path.exists():
            pinned = issubclass(artifact, Pinned)
            remedy = "run `make data` (or `dvc pull" if pinned else "run the train pipeline (or `dvc repro"
            raise ValueError(f"{artifact.path} is missing: {remedy} {artifact.path}`) first")
        uris[name] = str(path.resolve())  # kfp's local importer hands the path on as it is
    return uris


def _count_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
