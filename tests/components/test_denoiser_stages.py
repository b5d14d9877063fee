from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from canvas.models.text_spec import TextSpec
from lifecycle.graph import load_stage
from lifecycle.params import load_sections, read_section, read_stage_params
from lifecycle.stage import Input, Output, Scratch
from tests.components.generator_parts import write_encoders, write_random_shards, write_vae
from tests.components.mugs import write_catalogue
from tests.components.sidecars import write_sidecars

TINY = Path(__file__).parents[2] / "profiles" / "tiny.yaml"
STAGES = ("train_base", "train_inpaint", "train_backdrop", "tune_engaged", "assemble", "evaluate_backdrop")


class Log:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.pictures: list[str] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)

    def picture(self, name: str, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.pictures.append(name)


def run(name: str, root: Path, log: Log | None = None, **changes: Any) -> Log:
    """The stage `name` of profile tiny, its artifacts by their catalogue paths below `root`."""
    stage = load_stage(name)
    sections = load_sections(TINY)
    sections[name] |= changes
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four stages, run one after the other on random shards."""
    root = tmp_path_factory.mktemp("generator")
    (root / "artifacts").mkdir()
    write_catalogue(root / "artifacts")
    write_sidecars(root / "artifacts")
    write_random_shards(root / "artifacts" / "shards")
    write_vae(root / "models" / "vae")
    write_encoders(root, read_section(TextSpec, "text", load_sections(TINY)))
    for name in STAGES:
        run(name, root)
    return root


def figures(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "reports" / f"{name}.json").read_text())


def test_all_run(made):
    print(figures(made, "engaged_lora"))
