"""The files that are written from the stages, and whether those on disk still agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import Sections, load_sections, read_stage_params, unused_sections
from lifecycle.declare.stage import Stage
from pipelines.cluster import read_cluster
from pipelines.emit_dvc import dvc_yaml
from pipelines.emit_kfp import compiled_pipelines

COMPILED = Path("pipelines/compiled")
CLUSTER = Path("pipelines/cluster.yaml")


def graph_files(root: Path, stages: Sequence[Stage[Any]]) -> dict[Path, str]:
    """Path from `root` -> text of every generated file."""
    compiled = compiled_pipelines(stages, read_cluster(root / CLUSTER))
    return {Path("dvc.yaml"): dvc_yaml(stages, root)} | {
        COMPILED / f"{name}.yaml": text for name, text in compiled.items()
    }


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


def profile_file(root: Path, profile: str) -> Path:
    """`demo` is params.yaml itself, any other profile `profiles/<name>.yaml`; `ValueError` when there is none."""
    found = profile_files(root)
    if profile not in found:
        raise ValueError(f"no profile {profile!r}: there are {', '.join(found)}")
    return found[profile]


def profile_files(root: Path) -> dict[str, Path]:
    """Name -> params file of every profile."""
    return {"demo": root / "params.yaml"} | {file.stem: file for file in sorted((root / "profiles").glob("*.yaml"))}


def checked_sections(file: Path, stages: Sequence[Stage[Any]]) -> Sections:
    """The sections of a params file, after every stage has read its own; `ValueError` naming the file, the
    section and the fix for a key that is missing, unknown or wrong, and for a section that no stage reads."""
    sections = load_sections(file)
    try:
        for stage in stages:
            read_stage_params(stage, sections)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if unused := unused_sections(stages, sections):
        raise ValueError(f"{file}: no stage reads section {', '.join(map(repr, unused))}: remove it or fix its name")
    return sections


def check_profiles(root: Path, stages: Sequence[Stage[Any]]) -> None:
    """Read params.yaml and every profile strictly; raises what `checked_sections` raises."""
    for file in profile_files(root).values():
        checked_sections(file, stages)


def project_stages() -> tuple[Stage[Any], ...]:
    """The stages of the project in the working directory; `ValueError` saying what is wrong with a declaration."""
    try:
        return load_stages()
    except TypeError as error:
        raise ValueError(str(error)) from error


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8")
