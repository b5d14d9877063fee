"""Profiles: which there are, and how overlays change `params.yaml`, which is profile "demo".

Of the standard library alone: `make gpu` reads them where no other package is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find_profiles(root: Path) -> dict[str, Path]:
    """Return name -> file of every profile; the first, "demo", is `params.yaml` itself."""
    return {"demo": root / "params.yaml"} | {file.stem: file for file in sorted((root / "profiles").glob("*.yaml"))}


def list_profile_files(profile: str, root: Path) -> list[Path]:
    """Return the files of a profile, `params.yaml` first; "tiny+dit" is two overlays, of which the later one wins.

    Raises:
        ValueError: There is none of that name.
    """
    files, names = find_profiles(root), profile.split("+")
    if unknown := [name for name in names if name not in files]:
        raise ValueError(f"no profile {', '.join(map(repr, unknown))}: there are {', '.join(files)}")
    return [files["demo"], *(files[name] for name in names if name != "demo")]


def merge_sections(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `overlay`: a mapping merges into a mapping, anything else replaces."""
    merged = dict(base)
    for key, value in overlay.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = merge_sections(base[key], value) if nested else value
    return merged
