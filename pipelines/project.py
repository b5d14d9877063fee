"""The files that are written from the stages, and whether those on disk still agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import Sections, find_profiles, list_unused_sections, load_sections, read_stage_params
from lifecycle.declare.stage import Stage
from pipelines.cluster import read_cluster
from pipelines.emit_dvc import dvc_yaml
from pipelines.emit_kfp import compiled_pipelines
from pipelines.emit_params import params_page

COMPILED = Path("pipelines/compiled")
CLUSTER = Path("pipelines/cluster.yaml")
PARAMS = Path("docs/params.md")


def graph_files(root: Path, stages: Sequence[Stage[Any]]) -> dict[Path, str]:
    """Return path from `root` -> text of the generated files that say what runs."""
    compiled = compiled_pipelines(stages, read_cluster(root / CLUSTER))
    return {Path("dvc.yaml"): dvc_yaml(stages, root)} | {
        COMPILED / f"{name}.yaml": text for name, text in compiled.items()
    }


def generated_files(root: Path, stages: Sequence[Stage[Any]]) -> dict[Path, str]:
    """Return path from `root` -> text of every generated file; raises what `checked_sections` does, of any profile."""
    profiles = {profile: checked_sections(root, profile, stages) for profile in find_profiles(root)}
    return graph_files(root, stages) | {PARAMS: params_page(stages, profiles)}


def drifted(root: Path, files: dict[Path, str]) -> list[Path]:
    """Generated files that are missing, differ, or belong to no pipeline any more."""
    stale = {file.relative_to(root) for file in (root / COMPILED).glob("*.yaml")} - files.keys()
    changed = {path for path, text in files.items() if not (root / path).is_file() or _text(root / path) != text}
    return sorted(stale | changed)


def write_graph(root: Path, files: dict[Path, str]) -> list[Path]:
    """Bring the generated files up to date; returns those that changed."""
    changed = drifted(root, files)
    for path in changed:
        if path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path], encoding="utf-8", newline="\n")
        else:
            (root / path).unlink()
    return changed


def checked_sections(root: Path, profile: str, stages: Sequence[Stage[Any]]) -> Sections:
    """Return the sections of a profile after every stage has read its own.

    Raises:
        ValueError: A key is missing, unknown or wrong, or no stage reads a section. It names the profile's file,
            the section and the fix.
    """
    sections = load_sections(profile, root)
    file = find_profiles(root)[profile]
    try:
        for stage in stages:
            read_stage_params(stage, sections)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if unused := list_unused_sections(stages, sections):
        raise ValueError(f"{file}: no stage reads section {', '.join(map(repr, unused))}: remove it or fix its name")
    return sections


def project_stages() -> tuple[Stage[Any], ...]:
    """The stages of the project in the working directory; `ValueError` saying what is wrong with a declaration."""
    try:
        return load_stages()
    except TypeError as error:
        raise ValueError(str(error)) from error


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8")
