"""A whole project in a temporary directory, and a tracking store that is ready at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lifecycle.record import privacy
from lifecycle.record.tracking import format_sqlite_uri
from tests.forks import run_module

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
ODD = '50% off ?#%20 [x] q" ä'
"""A folder's name of what addresses, patterns, configs and shells take for their own."""
NOBODY = "http://127.0.0.1:9"
"""Nothing listens on the discard port: tracking that is down."""


@dataclass(frozen=True)
class Project:
    root: Path

    def environment(self, **changes: str | None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "CANVAS_"))}
        kept |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        kept |= privacy.TELEMETRY_OFF
        return {key: value for key, value in {**kept, **changes}.items() if value is not None}

    def lifecycle(self, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """`python -m lifecycle ARGUMENTS` in the project."""
        return run_module("lifecycle", *arguments, folder=self.root, environment=self.environment(**environment))

    def run(self, *command: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """A command in the project."""
        if command[0] == "dvc":
            return run_module(*command, folder=self.root, environment=self.environment(**environment))
        return subprocess.run(
            command, cwd=self.root, env=self.environment(**environment), capture_output=True, text=True, timeout=120
        )

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(format_sqlite_uri(self.root / ".mlflow" / "mlflow.db"))

    def records(self) -> list[Path]:
        return sorted((self.root / ".work" / "records").glob("[0-9]*"))


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """Three stages, parameters and raw data, without git, DVC or a store."""
    shutil.copytree(
        Path(__file__).parent / "project", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")
    )
    return Project(tmp_path / "project")


@pytest.fixture
def project(bare_project: Project, empty_store: Path) -> Project:
    """The same with an empty SQLite store in its place."""
    place = bare_project.root / ".mlflow"
    place.mkdir()
    shutil.copyfile(empty_store, place / "mlflow.db")
    return bare_project


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables; making them takes seconds, copying the file does not."""
    from lifecycle.record.tracking import configure_mlflow

    configure_mlflow()
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
