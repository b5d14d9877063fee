"""`dvc.yaml` from the stages' signatures."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from lifecycle.declare.closure import PACKAGES, list_code
from lifecycle.declare.graph import list_stage_names
from lifecycle.declare.stage import Artifact, Headline, Losses, Plot, Sheet, Stage
from pipelines.ask_outside import OUTSIDE
from pipelines.outside import reads_outside

CODE = "artifacts/code"  # files named after stages: what code each runs (`write_code_lists`)

HEADER = "# Written by `make graph` from the stages in components/: change a stage, not this file.\n"


def format_dvc_yaml(stages: Iterable[Stage[Any]], root: Path) -> str:
    """Return the text of `dvc.yaml` for the project at `root`.

    `python` in its commands is the one on PATH, so that conda users, containers and the copies that
    `dvc exp run --temp` makes (which hold no .venv) run the same file; make puts .venv/bin first.
    """
    stages = tuple(stages)
    entries = {"code": build_code_stage(root)}
    if any(map(reads_outside, stages)):
        entries["outside"] = build_outside_stage()
    entries |= {stage.name: build_dvc_stage(stage) for stage in stages}
    document: dict[str, Any] = {"stages": entries}
    if plots := [plot for stage in stages for plot in list_dvc_plots(stage)]:
        document["plots"] = plots
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def build_code_stage(root: Path) -> dict[str, Any]:
    """Return the stage that lists what code the others run: it follows every change, they follow those of their own."""
    return {
        "cmd": "python -m pipelines code",
        "desc": "List the files that the code of each stage runs, so that a change makes no other stage run again.",
        "deps": [package for package in PACKAGES if (root / package).is_dir()],
        "outs": [CODE],
    }


def build_outside_stage() -> dict[str, Any]:
    """Return the stage that asks, each time, whether what others read outside the project has changed."""
    return {
        "cmd": "python -m pipelines.ask_outside",
        "desc": "Ask whether what stages read outside the project has changed; those that read it follow.",
        "always_changed": True,
        "outs": [{OUTSIDE: {"persist": True}}],
    }


def write_code_lists(root: Path) -> None:
    """Write what code each stage of the project runs."""
    shutil.rmtree(root / CODE, ignore_errors=True)  # its files may be links into DVC's cache
    (root / CODE).mkdir(parents=True)
    for name in list_stage_names():
        (root / CODE / name).write_text(list_code(f"components.{name}", root), encoding="utf-8")


def build_dvc_stage(stage: Stage[Any]) -> dict[str, Any]:
    """Return an entry of `stages:`: deps are data and the list of code; the headline stays in git, all else is cached.

    The files of `reports/<stage>/` are one out, the folder, which a stage that collects depends on as a whole.

    Stages of the promote pipeline are frozen: `dvc repro` never moves a champion, only who means to does, by
    `python -m lifecycle promote` or on the cluster. They have no outs here: DVC fails where those of a frozen stage,
    which it does not make, are missing.
    """
    frozen = stage.pipeline == "promote"
    inputs = dict.fromkeys(
        get_out(stage.collected[argument][0], artifact) if argument in stage.collected else artifact.path
        for argument, artifact in stage.inputs.items()
    )
    outputs = () if frozen else stage.outputs.values()
    kinds = {get_out(stage, artifact): issubclass(artifact, Headline) for artifact in outputs}
    entry = {
        "cmd": f"python -m lifecycle run {stage.name}",
        "desc": stage.summary,
        "deps": [*inputs, f"{CODE}/{stage.name}", *([f"{OUTSIDE}/{stage.name}"] if reads_outside(stage) else [])],
        "frozen": frozen,
        "params": sorted(stage.params),
        "outs": [path for path, is_headline in kinds.items() if not is_headline],
        "metrics": [{path: {"cache": False}} for path, is_headline in kinds.items() if is_headline],
    }
    return {key: value for key, value in entry.items() if value}


def get_out(stage: Stage[Any], artifact: type[Artifact]) -> str:
    """Return the out of `stage` that holds `artifact`: its folder of reports, or the artifact's own path."""
    folder = f"reports/{stage.name}"
    return folder if artifact.path.startswith(f"{folder}/") else artifact.path


def list_dvc_plots(stage: Stage[Any]) -> Iterator[dict[str, Any]]:
    """Yield the stage's tables and sheets as top-level plots: only there may a plot have several `y` columns."""
    for artifact in stage.outputs.values():
        if issubclass(artifact, Sheet):
            yield {artifact.path: None}
        elif issubclass(artifact, Plot):
            y = artifact.y if isinstance(artifact.y, str) else list(artifact.y)
            title = " ".join((inspect.getdoc(artifact) or "").partition(".")[0].split())
            title = f"{stage.name}: training loss by step" if issubclass(artifact, Losses) else title
            yield {artifact.path: {"x": artifact.x, "y": y, "template": artifact.template, "title": title}}
