"""The pure-Python packages that `make gpu` needs beside torch and transformers, for machines without a network.

python -m bench.gpu.wheels    # gather them into .work/gpu-wheels; carry the checkout with it
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

WHEELS, UNPACKED = Path(".work/gpu-wheels"), Path(".work/gpu-packages")

MODULES = {
    "diffusers": "diffusers",
    "peft": "peft",
    "accelerate": "accelerate",
    "importlib_metadata": "importlib_metadata",
    "zipp": "zipp",
    "annotated-types": "annotated_types",
    "typing-extensions": "typing_extensions",
    "tqdm": "tqdm",
    "pytest": "pytest",
    "pluggy": "pluggy",
    "iniconfig": "iniconfig",
    "pygments": "pygments",
    "packaging": "packaging",
}
"""Package -> module that it brings."""

MAX_BYTES = 50_000_000
"""Limit of all wheels together."""


def gather_wheels(folder: Path = WHEELS) -> int:
    """Download the wheels, in the versions that are installed here, and return their bytes.

    Raises:
        ValueError: One is not pure Python, or all are too large to carry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(folder), *_list_requirements()], check=True)
    files = sorted(folder.glob("*.whl"))
    if impure := [file.name for file in files if not file.name.endswith("-none-any.whl")]:
        raise ValueError(f"{', '.join(impure)} hold compiled code, which fits one Python: take them off MODULES")
    if (size := sum(file.stat().st_size for file in files)) > MAX_BYTES:
        raise ValueError(f"{folder} holds {size:,} bytes of wheels, more than {MAX_BYTES:,}: take some off MODULES")
    return size


def _list_requirements() -> list[str]:
    """Return each package with the version that is installed here, so that what was tested is what is measured."""
    requirements = []
    for package in MODULES:
        try:
            requirements.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            requirements.append(package)
    return requirements


def unpack_missing(wheels: Path = WHEELS, folder: Path = UNPACKED) -> list[str]:
    """Put the modules that this Python lacks where it finds them, and return their names; no pip is needed.

    Raises:
        ValueError: There is no wheel of one.
    """
    missing = [package for package, module in MODULES.items() if find_spec(module) is None]
    for package in missing:
        name = package.replace("-", "_").lower()
        file = next((file for file in wheels.glob("*.whl") if file.name.lower().startswith(f"{name}-")), None)
        if file is None:
            raise ValueError(f"this Python has no {package}, nor {wheels} a wheel of it: run `make gpu-wheels` first")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    if missing:
        sys.path.append(str(folder.resolve()))
    return missing


if __name__ == "__main__":
    print(f"{WHEELS}: {gather_wheels():,} bytes")
