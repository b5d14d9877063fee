"""The generator's stages of profile tiny, run as the wrapper would run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Input, Output, Scratch

ROOT = Path(__file__).parents[2]
STAGES = (
    "train_judges",
    "train_base",
    "train_inpaint",
    "train_backdrop",
    "tune_engaged",
    "train_ip_adapter",
    "assemble",
    "evaluate_backdrop",
    "evaluate_style",
    "evaluate_scenes",
)


class Log:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.pictures: list[str] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)

    def image(self, name: str, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.pictures.append(name)


def run(
    name: str,
    root: Path,
    log: Log | None = None,
    section: str | None = None,
    overlay: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Log:
    """The stage `name` of profile tiny with the sections of `overlay`, and `changes` of a section, its own by default;
    its artifacts stand by their catalogue paths below `root`."""
    stage = load_stage(name)
    sections = merge_sections(load_sections("tiny", ROOT), overlay or {})
    sections = merge_sections(sections, {section or name: changes} if changes else {})
    log = log or Log()
    ends: dict[str, Any] = {key: Input(root / artifact.path) for key, artifact in stage.inputs.items()}
    for key, artifact in stage.outputs.items():
        (root / artifact.path).parent.mkdir(parents=True, exist_ok=True)
        ends[key] = Output(root / artifact.path)
    if stage.scratch:
        ends[stage.scratch] = Scratch(root / "scratch" / name)
        (root / "scratch" / name).mkdir(parents=True, exist_ok=True)
    if stage.log:
        ends[stage.log] = log
    stage(**read_stage_params(stage, sections), **ends)
    return log
