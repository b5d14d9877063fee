"""The toy: a whole small project (data, library, two stages, params) on which the graph commands really run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forks import run_module
from tests.lifecycle.conftest import NOBODY

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    """A project in a directory of its own; its `components` and `canvas` hide the real ones."""

    root: Path

    def environment(self, **changes: str) -> dict[str, str]:
        """This Python first on PATH, and tracking that is off: records take seconds."""
        binaries = str(Path(sys.executable).parent)
        settings = {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": NOBODY,
            "GIT_AUTHOR_NAME": "toy",
            "GIT_AUTHOR_EMAIL": "toy@localhost",
            "GIT_COMMITTER_NAME": "toy",
            "GIT_COMMITTER_EMAIL": "toy@localhost",
        }
        return os.environ | settings | changes

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in the project."""
        if command[0] == "dvc":
            return run_module(*command, folder=self.root, environment=self.environment(**environment))
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def pipelines(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python -m pipelines ARGUMENTS` in the project."""
        return run_module("pipelines", *arguments, folder=self.root, environment=self.environment(**environment))

    def ok(self, *command: str, **environment: str) -> str:
        """What a command that must succeed prints."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def copy(self, place: Path) -> Project:
        shutil.copytree(self.root, place, symlinks=True)
        return Project(place)

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def dvc(self) -> dict[str, Any]:
        return yaml.safe_load(self.read("dvc.yaml"))

    def compiled(self, pipeline: str = "train") -> tuple[dict[str, Any], dict[str, Any]]:
        """The pipeline specification and the platform specification."""
        specification, platform = yaml.safe_load_all(self.read(f"pipelines/compiled/{pipeline}.yaml"))
        return specification, platform


@pytest.fixture(scope="session")
def written_toy(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy with its generated files; tests get copies."""
    place = tmp_path_factory.mktemp("graph") / "toy"
    shutil.copytree(Path(__file__).parent / "toy", place, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "pipelines").mkdir()
    shutil.copy(ROOT / "pipelines" / "cluster.yaml", place / "pipelines")
    project = Project(place)
    assert project.pipelines("graph").returncode == 0
    return project


@pytest.fixture(scope="session")
def committed_toy(written_toy: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy as a git and DVC repository whose data is pinned and whose files are committed; tests get copies."""
    project = written_toy.copy(tmp_path_factory.mktemp("repository") / "toy")
    shutil.copytree(ROOT / ".dvc", project.root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project.root)
    project.ok("git", "init", "--quiet")
    project.ok("dvc", "add", "--quiet", "data")
    project.ok("git", "add", "--all")
    project.ok("git", "commit", "--quiet", "--message", "toy")
    return project


@pytest.fixture
def toy(written_toy: Project, tmp_path: Path) -> Project:
    """A fresh copy of the toy with its generated files."""
    return written_toy.copy(tmp_path / "toy")


@pytest.fixture
def repository(committed_toy: Project, tmp_path: Path) -> Project:
    """A fresh copy of the toy's repository."""
    return committed_toy.copy(tmp_path / "toy")
