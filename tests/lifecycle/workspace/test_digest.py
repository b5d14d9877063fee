"""Our digests against DVC's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.workspace.digest import digest


def dvc_digest(path: Path, cache: Path) -> str:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    fs = LocalFileSystem()
    _, _, built = build(HashFileDB(fs, str(cache)), str(path), fs, "md5")
    return str(built.hash_info.value)


def tree(root: Path) -> Path:
    for name, content in {
        "b.txt": b"b",
        "a/z.bin": bytes(range(256)),
        "a.txt": b"line\r\nline\r\n",
        "a-b/x": b"sorts before a/",
        "deep/er/still/file": b"",
        "späte Grüße/日本.txt": "Ü".encode(),
        'quo"te': b"q",
        ".hidden": b"h",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty").mkdir()
    (root / "link").symlink_to(root / "b.txt")
    return root


def test_a_directory(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    ours = digest(root)
    assert ours == dvc_digest(root, tmp_path / "cache")
    assert ours.endswith(".dir")


@pytest.mark.parametrize("content", [b"", b"one\r\ntwo\r\n", b"x" * ((1 << 20) + 1)], ids=["empty", "crlf", "long"])
def test_a_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert digest(file) == dvc_digest(file, tmp_path / "cache")


def test_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    assert digest(tmp_path / "tree") == dvc_digest(tmp_path / "tree", tmp_path / "cache")


def test_any_change_changes_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    before = digest(root)
    (root / "a.txt").rename(root / "c.txt")
    assert digest(root) != before


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "nothing")
