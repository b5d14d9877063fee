"""Where a run comes from: the project, its git revision, and the larger run that it is a part of."""

from __future__ import annotations

import os
import socket
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

CODE = ("*.py", "*.yaml", "*.toml", "*.dvc", "requirements.lock", ":!pipelines/compiled")
"""What makes a work tree dirty. Not dvc.lock and not reports, which a run itself rewrites."""


@dataclass(frozen=True, slots=True)
class Group:
    """The run that several stages are parts of: one `dvc repro`, one Kubeflow run."""

    key: str  # the same in all its stages, different in any other
    name: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A git commit, and whether code or parameters differ from it."""

    sha: str
    dirty: bool


def find_project(root: Path) -> Path:
    """Return the project that `root` belongs to. `dvc exp run --temp` and its queue work in copies below
    `.dvc/tmp/exps` of the project; what is recorded there must outlive the copy."""
    root = root.resolve()
    projects = (folder for folder in reversed(root.parents) if root.is_relative_to(folder / ".dvc" / "tmp" / "exps"))
    return next(projects, root)


def read_revision(root: Path) -> Revision | None:
    """Return the revision of the work tree at `root`; in a container, which holds no work tree, what its build put
    into CANVAS_GIT_SHA; None if neither is there."""
    sha = _run_git(root, "rev-parse", "HEAD")
    if sha is not None:
        return Revision(sha, bool(_run_git(root, "status", "--porcelain", "--", *CODE)))
    built = os.environ.get("CANVAS_GIT_SHA")
    return Revision(built, dirty=False) if built else None


def read_release(root: Path) -> str | None:
    """Return the version in pyproject.toml of the project at `root`; None without one."""
    file = root / "pyproject.toml"
    if not file.is_file():
        return None
    version: str | None = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}).get("version")
    return version


def find_group() -> Group | None:
    """Return the larger run. CANVAS_RUN names it where the caller knows (a Kubeflow run's id); below `dvc` it is
    the DVC process, the nearest ancestor without DVC_STAGE in its environment. By hand there is none."""
    if name := os.environ.get("CANVAS_RUN"):
        return Group(name, name)
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    for process in psutil.Process().parents():
        try:
            if "DVC_STAGE" in process.environ():
                continue
        except psutil.Error:
            continue
        started = process.create_time()
        name = os.environ.get("DVC_EXP_NAME") or f"dvc {datetime.fromtimestamp(started):%Y-%m-%d %H:%M:%S}"
        return Group(f"{socket.gethostname()}:{process.pid}:{started:.2f}", name)
    return None


def _run_git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
