"""The shipped profiles: read by the stages, no dead weight, and the page that lists them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from canvas.filters.near_duplicates import HASH_BITS
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections, read_sections
from lifecycle.declare.profiles import find_profiles
from pipelines.emit_kfp import build_arguments, list_imports
from pipelines.emit_params import format_params_page
from pipelines.project import load_checked_sections
from tests.graph.conftest import ROOT

OVERLAYS = {name: file for name, file in find_profiles(ROOT).items() if name != "demo"}
LINES = {"demo": 550, "canvas-dit": 210, "canvas-xl": 350, "dit": 20, "text": 20, "unet": 20}
BELOW = {"dit": "tiny"}  # what an overlay is meant for, where it is not the demo
LINES |= {"public-sdxl-lora": 200, "small": 180, "tiny": 150}


@pytest.mark.parametrize("profile", find_profiles(ROOT))
def test_profiles_are_read_by_the_stages_and_short(profile: str) -> None:
    load_checked_sections(ROOT, profile, load_stages())
    assert len(find_profiles(ROOT)[profile].read_text(encoding="utf-8").splitlines()) < LINES[profile]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("encode: {holes: cells}", "encode.holes is cells, but denoiser.kind dit reads pixels: make them agree"),
        ("frames: {buckets: [[128, 128], [136, 120]]}", "are no multiples of 16: change them, or vae.patch"),
    ],
)
def test_what_is_encoded_must_be_what_the_denoiser_reads(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "profiles").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "profiles" / "odd.yaml").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(reason)):
        load_checked_sections(tmp_path, "odd", load_stages())


def test_the_transformer_at_tiny_size_goes_to_both_graphs() -> None:
    stages = [stage for stage in load_stages() if stage.pipeline == "train"]
    sections = load_checked_sections(ROOT, "tiny+dit", load_stages())
    assert sections["denoiser"]["kind"] == "dit"
    assert sections["train_base"]["train"]["steps"] == load_sections("tiny", ROOT)["train_base"]["train"]["steps"]
    uris = {name: f"file:///{name}" for name in list_imports(stages)}
    arguments = build_arguments(stages, sections, uris)
    assert json.loads(arguments["encode"])["holes"] == "pixels"
    assert arguments.keys() == build_arguments(stages, load_sections("tiny", ROOT), uris).keys()


def test_an_alignment_without_features_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    lines = "train_inpaint: {feature_alignment: {layer: mid_block, weight: 0.5, width: 64, share: 0.5}}\n"
    (tmp_path / "profiles" / "aligned.yaml").write_text(lines, encoding="utf-8")
    reason = "train_inpaint.feature_alignment is given, but encode.features is null: name a network"
    with pytest.raises(ValueError, match=re.escape(reason)):
        load_checked_sections(tmp_path, "aligned", load_stages())
    features = "encode: {features: {network: photographs, layer: 3, cells: 2}}\n"
    (tmp_path / "profiles" / "aligned.yaml").write_text(lines + features, encoding="utf-8")
    load_checked_sections(tmp_path, "tiny+aligned", load_stages())


def test_frames_are_refused_that_the_transformer_cannot_read(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "profiles" / "tall.yaml").write_text("frames: {buckets: [[64, 64], [72, 56]]}\n", encoding="utf-8")
    load_checked_sections(tmp_path, "tiny+tall", load_stages())
    reason = (
        "denoiser.kind dit reads 2 x 2 latent cells of 8 pixels, but frames.buckets [[72, 56]] are no multiples of 16"
    )
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        load_checked_sections(tmp_path, "tiny+dit+tall", load_stages())
    assert "profiles/tiny.yaml + " in str(refused.value)


@pytest.mark.parametrize("profile", find_profiles(ROOT))
def test_near_duplicates_are_told_by_the_hash_that_there_is(profile: str) -> None:
    limits = load_sections(profile, ROOT)["filter"]["duplicates"]
    assert 0.15 < limits["max_hash_distance"] / HASH_BITS < 0.25


def repeated(base: Any, overlay: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Keys of an overlay that change nothing."""
    for key, value in overlay.items():
        known = base.get(key, ...)
        if isinstance(value, dict) and isinstance(known, dict):
            yield from repeated(known, value, f"{path}{key}.")
        elif value == known and type(value) is type(known):
            yield f"{path}{key}"


@pytest.mark.parametrize("profile", OVERLAYS)
def test_an_overlay_repeats_nothing(profile: str) -> None:
    below = load_sections(BELOW.get(profile, "demo"), ROOT)
    assert list(repeated(below, read_sections(OVERLAYS[profile]))) == []


def test_what_an_overlay_repeats_is_found() -> None:
    base = {"a": {"x": 1, "y": {"z": None}}, "b": [1]}
    overlay = {"a": {"x": 1, "y": {"z": None}}, "b": [1], "c": None}
    assert list(repeated(base, overlay)) == ["a.x", "a.y.z", "b"]
    assert list(repeated(base, {"a": {"x": 1.0, "y": None}, "b": [2]})) == []


def test_the_page_has_every_key_with_its_readers_and_values() -> None:
    stages = load_stages()
    profiles = {name: load_sections(name, ROOT) for name in find_profiles(ROOT)}
    page = format_params_page(stages, profiles)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    training = page.partition("## training")[2].partition("##")[0]
    assert all(f"`{stage.name}`" in training for stage in stages if "training" in stage.params)
    assert "| `clip_norm` | number > 0 or null |" in training
    steps = [row for row in rows if row.startswith("| `train.steps` | integer ≥ 1 |")]
    assert any(row.endswith("| `80` |  | `200000` |  |  | `32000` |  | `4` |  |") for row in steps)
    assert any(
        row.startswith("| `held_out_kinds` | list of text | corruptions that training never shows |") for row in rows
    )
    assert "evaluate_style" not in training
