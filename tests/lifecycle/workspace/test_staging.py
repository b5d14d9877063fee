"""Where outs are written, what survives a failure, and who may work there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lifecycle.workspace.staging import move_into_place, open_workspace, reserve_outputs


def test_success_leaves_nothing(tmp_path: Path) -> None:
    with open_workspace("train", "key", tmp_path) as place:
        (place / "scratch" / "step-1").touch()
    assert not place.exists()


def test_failure_leaves_the_scratch(tmp_path: Path) -> None:
    place = tmp_path / "train" / "key"
    with pytest.raises(IsADirectoryError), open_workspace("train", "key", tmp_path):
        work_half(place)
    assert [file.name for file in (place / "scratch").iterdir()] == ["step-1"]
    assert not (place / "outs").exists()
    with open_workspace("train", "key", tmp_path) as again:
        assert (again / "scratch" / "step-1").exists()


def work_half(place: Path) -> None:
    (place / "scratch" / "step-1").touch()
    (place / "outs" / "half").mkdir()
    (place / "outs" / "half").write_text("")


def test_success_clears_what_other_keys_left(tmp_path: Path) -> None:
    for stage, key in (("train", "old"), ("other", "old")):
        with pytest.raises(KeyError), open_workspace(stage, key, tmp_path):
            raise KeyError
    with open_workspace("train", "new", tmp_path):
        assert (tmp_path / "train" / "old" / "scratch").exists()
    assert not (tmp_path / "train" / "old").exists()
    assert (tmp_path / "other" / "old").exists()


def test_the_same_run_twice_at_a_time_is_refused(tmp_path: Path) -> None:
    with open_workspace("train", "key", tmp_path) as place:
        (place / "outs" / "mine").touch()
        with pytest.raises(ValueError, match="it already runs with the same"), open_workspace("train", "key", tmp_path):
            pass
        with open_workspace("train", "other", tmp_path):
            pass
        assert (place / "outs" / "mine").exists()


def test_git_ignores_it(tmp_path: Path) -> None:
    with open_workspace("train", "key", tmp_path / ".work"):
        pass
    assert (tmp_path / ".work" / ".gitignore").read_text() == "*\n"


def test_outs_are_staged_under_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "outs").mkdir()
    target = tmp_path / "reports" / "sub" / "x"
    with reserve_outputs({"report": target}, {"report": "report.html"}, tmp_path) as paths:
        assert paths == {"report": tmp_path / "outs" / "report" / "report.html"}
        assert paths["report"].parent.is_dir()
        assert target.parent.is_dir()
        assert not target.exists()


def test_outs_on_another_file_system_are_staged_beside_it(tmp_path: Path, other_file_system: Path) -> None:
    (tmp_path / "outs").mkdir()
    target = other_file_system / "pins"
    (other_file_system / ".partial-pins" / "killed").mkdir(parents=True)
    with reserve_outputs({"pins": target}, {"pins": "pins"}, tmp_path) as paths:
        assert paths["pins"].parent.parent == other_file_system
        assert not list(paths["pins"].parent.iterdir())
        paths["pins"].mkdir()
        move_into_place(paths["pins"], target)
    assert [path.name for path in other_file_system.iterdir()] == ["pins"]


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has one writable file system")
    with TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize("former", ["nothing", "file", "directory"])
@pytest.mark.parametrize("new", ["file", "directory"])
def test_put_replaces_whatever_is_there(tmp_path: Path, former: str, new: str) -> None:
    target, written = tmp_path / "target", tmp_path / "outs" / "new"
    written.parent.mkdir()
    for kind, path in ((former, target), (new, written)):
        if kind == "file":
            path.write_text(path.name)
        elif kind == "directory":
            path.mkdir()
            (path / path.name).touch()
    move_into_place(written, target)
    assert target.read_text() == "new" if new == "file" else [file.name for file in target.iterdir()] == ["new"]
