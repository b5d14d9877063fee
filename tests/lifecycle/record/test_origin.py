"""Where a run comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lifecycle.record.origin import Group, Revision, find_group, find_project, read_release, read_revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "code.py").write_text("one = 1\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "Start")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        (None, False),
        ("code.py", True),
        ("new.py", True),
        ("params.yaml", True),
        ("dvc.lock", False),
        ("notes.md", False),
    ],
)
def test_code_and_parameters_make_it_dirty(repository: Path, file: str | None, dirty: bool) -> None:
    """What a run itself rewrites does not."""
    if file:
        (repository / file).write_text("changed\n")
    revision = read_revision(repository)
    assert revision is not None
    assert len(revision.sha) == 40
    assert revision.dirty == dirty


def test_an_image_says_what_it_was_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("CANVAS_GIT_SHA", raising=False)
    assert read_revision(tmp_path) is None
    monkeypatch.setenv("CANVAS_GIT_SHA", "a" * 40)
    assert read_revision(tmp_path) == Revision("a" * 40, dirty=False)


def test_a_temporary_experiment_is_recorded_at_home(tmp_path: Path) -> None:
    assert find_project(tmp_path) == tmp_path
    assert find_project(tmp_path / ".dvc" / "tmp" / "exps" / "tmpabc" / "sub") == tmp_path


def test_the_larger_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANVAS_RUN", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert find_group() is None
    monkeypatch.setenv("CANVAS_RUN", "nightly")
    assert find_group() == Group("nightly", "nightly")


@pytest.mark.parametrize(
    ("text", "release"), [('[project]\nversion = "1.2"\n', "1.2"), ("[tool.ruff]\n", None), (None, None)]
)
def test_release_is_the_projects_version(tmp_path: Path, text: str | None, release: str | None) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert read_release(tmp_path) == release
