"""A project of profile tiny in a folder of its own, and its stages one after the other in one process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measurement import ROOT
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from lifecycle.declare.stage import Paths, Stage
from lifecycle.run.stage import run_stage
from lifecycle.workspace.digest import digest, list_digests

PINNED = ("champion", "ratings", "preferences")
PROFILE = "tiny"


def write_project(root: Path) -> None:
    """Fill the folder with what the stages read and no stage writes. `data` is a link to this tree's."""
    root.mkdir(exist_ok=True)
    (root / "data").symlink_to(ROOT / "data")
    for name in PINNED:
        shutil.copytree(ROOT / name, root / name)
    for file in [*ROOT.glob("[!.]*.dvc"), ROOT / "params.yaml"]:
        shutil.copy(file, root)


def list_stages() -> list[Stage[Any]]:
    """Return the stages of the train pipeline in the order in which they run."""
    return [stage for stage in load_stages() if stage.pipeline == "train"]


def get_paths(stage: Stage[Any]) -> tuple[Paths, Paths]:
    """Return argument -> path of a stage's inputs and outputs, from the project's folder."""
    inputs, outputs = (
        {argument: Path(artifact.path) for argument, artifact in artifacts.items()}
        for artifacts in (stage.inputs, stage.outputs)
    )
    return inputs, outputs


def run_here(stage: Stage[Any]) -> None:
    """Run a stage in the project that is the working directory; its record stays on the disk."""
    run_stage(stage, load_sections(PROFILE, ROOT), *get_paths(stage), send=False)


def run_graph(root: Path) -> Iterator[Stage[Any]]:
    """Run the stages one after the other in the project `root`, each yielded when it is done."""
    os.environ["PYTHONPATH"] = str(ROOT)  # for processes that stages start
    os.chdir(root)
    for stage in list_stages():
        run_here(stage)
        yield stage


def digest_files(paths: Paths) -> dict[str, str]:
    """Return the digest of every file at and below these paths."""
    digests: dict[str, str] = {}
    for path in paths.values():
        files = {str(path / name): content for name, content in list_digests(path).items()}
        digests |= files if path.is_dir() else {str(path): digest(path)}
    return digests
