"""Profiles: which there are, and how an overlay changes `params.yaml`, which is profile "demo".

Of the standard library alone: `make gpu` reads them where no other package is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find_profiles(root: Path) -> dict[str, Path]:
    """Return name -> file of every profile; the first, "demo", is `params.yaml` itself."""
    return {"demo": root / "params.yaml"} | {file.stem: file for file in sorted((root / "profiles").glob("*.yaml"))}


def merge_sections(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `overlay`: a mapping merges into a mapping, anything else replaces."""
    merged = dict(base)
    for key, value in overlay.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = merge_sections(base[key], value) if nested else value
    return merged
