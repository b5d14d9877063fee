"""The files that are written from the stages, whether those on disk still agree, and params.yaml with its dial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import Sections, list_unused_sections, load_sections, read_stage_params
from lifecycle.declare.profiles import find_profiles, list_profile_files
from lifecycle.declare.stage import Stage
from pipelines.cluster import read_cluster
from pipelines.emit_dvc import format_dvc_yaml
from pipelines.emit_kfp import compile_pipelines
from pipelines.emit_params import format_params_page

COMPILED = Path("pipelines/compiled")
CLUSTER = Path("pipelines/cluster.yaml")
PARAMS = Path("docs/params.md")

EFFORT = re.compile(r"(?m)^(training:[^\n]*\n(?:[ #][^\n]*\n)*?  effort: *)([^\s#]+)")  # its line in params.yaml


def build_graph_files(root: Path, stages: Sequence[Stage[Any]]) -> dict[Path, str]:
    """Return path from `root` -> text of the generated files that say what runs."""
    compiled = compile_pipelines(stages, read_cluster(root / CLUSTER))
    return {Path("dvc.yaml"): format_dvc_yaml(stages, root)} | {
        COMPILED / f"{name}.yaml": text for name, text in compiled.items()
    }


def build_files(root: Path, stages: Sequence[Stage[Any]]) -> dict[Path, str]:
    """Return path from `root` -> text of every generated file; `ValueError` for a wrong value of any profile."""
    profiles = {profile: load_checked_sections(root, profile, stages) for profile in find_profiles(root)}
    return build_graph_files(root, stages) | {PARAMS: format_params_page(stages, profiles)}


def find_drift(root: Path, files: dict[Path, str]) -> list[Path]:
    """Return the generated files that are missing, differ, or belong to no pipeline any more."""
    stale = {file.relative_to(root) for file in (root / COMPILED).glob("*.yaml")} - files.keys()
    missing = {path for path in files if not (root / path).is_file()}
    changed = {path for path in files.keys() - missing if (root / path).read_bytes() != files[path].encode()}
    return sorted(stale | missing | changed)


def write_graph(root: Path, files: dict[Path, str]) -> list[Path]:
    """Bring the generated files up to date and return those that changed."""
    changed = find_drift(root, files)
    for path in changed:
        if path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path], encoding="utf-8", newline="\n")
        else:
            (root / path).unlink()
    return changed


def load_checked_sections(root: Path, profile: str, stages: Sequence[Stage[Any]]) -> Sections:
    """Return the sections of a profile after every stage has read its own.

    Raises:
        ValueError: A key is missing, unknown or wrong, or no stage reads a section. It names the profile's file,
            the section and the fix. Or the frames and holes that are encoded are none that the denoiser reads.
    """
    sections = load_sections(profile, root)
    file = " + ".join(str(file) for file in list_profile_files(profile, root)[-profile.count("+") - 1 :])
    params: dict[str, Any] = {}
    try:
        for stage in stages:
            params |= read_stage_params(stage, sections)
        if {"denoiser", "encode", "frames", "vae"} <= params.keys():
            params["denoiser"].check_encoding(params["encode"].holes, params["frames"], params["vae"].factor)
            for stage_name in ("train_base", "train_inpaint"):
                params[stage_name].check_features(stage_name, params["encode"].features)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if unused := list_unused_sections(stages, sections):
        raise ValueError(f"{file}: no stage reads section {', '.join(map(repr, unused))}: remove it or fix its name")
    return sections


def set_effort(root: Path, stages: Sequence[Stage[Any]], effort: float) -> str:
    """Set `training.effort` in params.yaml, comments kept, and say in a sentence what changed.

    Raises:
        ValueError: No training can be as long, or params.yaml has no such line; the file is as it was.
    """
    file = root / "params.yaml"
    before = file.read_text(encoding="utf-8")
    if (line := EFFORT.search(before)) is None:
        raise ValueError(f"{file} has no line `  effort: 1.0` in section training: add it")
    file.write_text(EFFORT.sub(rf"\g<1>{effort}", before), encoding="utf-8")
    try:
        load_checked_sections(root, "demo", stages)
    except ValueError:
        file.write_text(before, encoding="utf-8")
        raise
    return f"params.yaml: training.effort is {effort:g} (it was {line[2]}), so trainings take {effort:g} x their steps"


def load_project_stages() -> tuple[Stage[Any], ...]:
    """Return the stages of the project in the working directory; `ValueError` says what is wrong with a declaration."""
    try:
        return load_stages()
    except TypeError as error:
        raise ValueError(str(error)) from error
