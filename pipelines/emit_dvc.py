"""`dvc.yaml` from the stages' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lifecycle.declare.closure import list_code_paths
from lifecycle.declare.stage import Artifact, Headline, Losses, Plot, Sheet, Stage

HEADER = "# Written by `make graph` from the stages in components/: change a stage, not this file.\n"


def dvc_yaml(stages: Iterable[Stage[Any]], root: Path) -> str:
    """The text of `dvc.yaml` for the project at `root`.

    `python` in its commands is the one on PATH, so that conda users, containers and the copies that
    `dvc exp run --temp` makes (which hold no .venv) run the same file; make puts .venv/bin first.
    """
    stages = tuple(stages)
    document: dict[str, Any] = {"stages": {stage.name: dvc_stage(stage, root) for stage in stages}}
    if plots := [plot for stage in stages for plot in dvc_plots(stage)]:
        document["plots"] = plots
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def dvc_stage(stage: Stage[Any], root: Path) -> dict[str, Any]:
    """One entry of `stages:`: deps are data and rooms of code; the headline stays in git, all else in the cache.

    The files of `reports/<stage>/` are one out, the folder, which a stage that collects depends on as a whole.

    Stages of the promote pipeline are frozen: `dvc repro` never moves a champion, only who means to does, by
    `python -m lifecycle promote` or on the cluster. They have no outs here: DVC fails where those of a frozen stage,
    which it does not make, are missing.
    """
    frozen = stage.pipeline == "promote"
    read = dict.fromkeys(
        get_out(stage.collected[argument][0], artifact) if argument in stage.collected else artifact.path
        for argument, artifact in stage.inputs.items()
    )
    written = () if frozen else stage.outputs.values()
    kinds = {get_out(stage, artifact): issubclass(artifact, Headline) for artifact in written}
    entry = {
        "cmd": f"python -m lifecycle run {stage.name}",
        "desc": stage.summary,
        "deps": [*read, *list_code_paths(stage.module, root)],
        "frozen": frozen,
        "params": sorted(stage.params),
        "outs": [path for path, is_headline in kinds.items() if not is_headline],
        "metrics": [{path: {"cache": False}} for path, is_headline in kinds.items() if is_headline],
    }
    return {key: value for key, value in entry.items() if value}


def get_out(stage: Stage[Any], artifact: type[Artifact]) -> str:
    """The out of `stage` that holds `artifact`: its folder of reports, or the artifact's own path."""
    folder = f"reports/{stage.name}"
    return folder if artifact.path.startswith(f"{folder}/") else artifact.path


def dvc_plots(stage: Stage[Any]) -> list[dict[str, Any]]:
    """The stage's tables and sheets as top-level plots: only there may a plot have several `y` columns."""
    return [plot for artifact in stage.outputs.values() if (plot := _dvc_plot(stage.name, artifact)) is not None]


def _dvc_plot(stage_name: str, artifact: type[Artifact]) -> dict[str, Any] | None:
    if issubclass(artifact, Sheet):
        return {artifact.path: None}
    if issubclass(artifact, Plot):
        y = artifact.y if isinstance(artifact.y, str) else list(artifact.y)
        title = " ".join((inspect.getdoc(artifact) or "").partition(".")[0].split())
        title = f"{stage_name}: training loss by step" if issubclass(artifact, Losses) else title
        return {artifact.path: {"x": artifact.x, "y": y, "template": artifact.template, "title": title}}
    return None
