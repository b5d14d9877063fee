"""What is compared: one run of stage train_text each, and the shards that are encoded with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.families.training import Contestant, Sources, count_parameters, read_denoiser_spec
from bench.measurement import ROOT, run_stage
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections

ARMS: Mapping[str, Mapping[str, Any]] = {
    "frozen": {"train": None},
    "tuned": {"neighbours": None},
    "tuned with neighbours": {},
}
"""What each arm has differently from `profiles/text.yaml`."""


def build_arm(name: str, profile: str, sources: Sources) -> Contestant:
    """Tune the text encoders of an arm, encode the catalogue with them, and return its denoiser.

    The frozen arm's shards are the run's, where they were encoded with the params of `profile`.
    """
    sections = merge_sections(load_sections(f"{profile}+text", ROOT), {"train_text": ARMS[name]})
    place = sources.work / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)  # of a run before
    run_stage("train_text", sections, place, sources.root)
    if ARMS[name].get("train", ...) is None and is_encoded(sections, sources.root):
        shards = sources.root / "artifacts" / "shards"
    else:
        run_stage("encode", sections, place, sources.root)
        shards = place / "artifacts" / "shards"
    spec = read_denoiser_spec(sections)
    return Contestant(
        name=name,
        sections=sections,
        spec=spec,
        parameters=count_parameters(spec, sections, sources.vae),
        text_encoders=place / "models" / "text",
        shards=shards,
    )


def is_encoded(sections: Mapping[str, Any], root: Path) -> bool:
    """Whether the run's shards are as these params encode them, with towers as stage train_clip wrote them."""
    demo = load_sections(root=ROOT)
    same = all(sections[name] == demo[name] for name in ("encode", "text", "frames"))
    return same and demo["train_text"]["train"] is None and (root / "artifacts" / "shards").is_dir()
