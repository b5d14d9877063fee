"""What the pages say is so: links, paths, targets, options, the catalogue example, the version."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from ruamel.yaml import YAML

from canvas.__main__ import _build_parser as canvas_parser
from canvas.pins import tables
from canvas.pins.images import encode_png
from components.ingest import IngestParams
from lifecycle.__main__ import _parser as lifecycle_parser
from lifecycle.declare.graph import load_stages, stage_names
from lifecycle.declare.params import read_section
from lifecycle.declare.stage import Input, Output

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LONG = re.compile(r"\[\w+\]: https?://")
GENERATED = "params.md"
TO_COME = ("components/count_colours.py",)

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@page
def test_paths_that_are_named_exist(page: Path) -> None:
    folders = "canvas|evaluation|lifecycle|components|pipelines|bench|tests|docs|profiles"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and name not in TO_COME] == []


@page
def test_targets_are_makes(page: Path) -> None:
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert [target for target in targets if not re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)] == []


@page
def test_lines_fit(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    long = [line for line in lines if len(line) >= 120 and not LONG.match(line)]
    assert page.name == GENERATED or long == []


@page
def test_stages_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:train|evaluate|validate|tune|mine|sample)_[a-z_]+)`", page.read_text(encoding="utf-8"))
    assert page.name == GENERATED or set(named) <= set(stage_names())


def test_example_of_a_catalogue_is_read() -> None:
    text = (ROOT / "docs/tutorials/your-catalogue.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    params = read_section(IngestParams, "ingest", YAML(typ="safe", pure=True).load(example))
    assert params.source == "manifest"
    assert params.manifest.columns["pin_id"] == "sku"


def test_stage_of_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/tutorials/add-a-stage.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = ModuleType("components.count_colours")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "count_colours.py", "exec"), module.__dict__)
    stage = module.count_colours
    assert stage.outputs["metrics"].path == "reports/count_colours/metrics.json"

    halves = np.zeros((4, 4, 3), np.uint8)
    halves[:2] = 255
    pins = [{"pin_id": name, "image": encode_png(Image.fromarray(halves)), "split": "train"} for name in "ab"]
    kept = [{"pin_id": "a", "kept": True}, {"pin_id": "b", "kept": False, "reason": "tiny"}]
    for rows, name, schema in ((pins, "pins", tables.PINS), (kept, "kept", tables.KEPT)):
        tables.write(tmp_path / name, [pa.Table.from_pylist(rows, schema=schema)], schema)
    stage(
        count_colours=module.CountColoursParams(levels=4),
        pins=Input(tmp_path / "pins"),
        kept=Input(tmp_path / "kept"),
        metrics=Output(tmp_path / "metrics.json"),
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"pins": 1, "colours_mean": 2.0}
    with pytest.raises(ValueError, match="levels is 1: give 2 to 256"):
        module.CountColoursParams(levels=1)


@page
def test_reports_that_are_named_are_written(page: Path) -> None:
    named = re.findall(r"`(reports/[\w/.-]+\.\w+)`", page.read_text(encoding="utf-8"))
    written = {artifact.path for stage in load_stages() for artifact in stage.outputs.values()}
    assert set(named) <= written | {"reports/count_colours/metrics.json"}


def test_every_option_and_command_is_on_the_page() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    styles = (ROOT / "docs/how-to/styles.md").read_text(encoding="utf-8")
    (generate,) = (action.choices["generate"] for action in canvas_parser()._actions if action.choices)
    options = {name for action in generate._actions for name in action.option_strings} - {"-h", "--help"}
    assert options <= set(re.findall(r"--[a-z-]+", text + styles))
    (commands,) = (action.choices for action in lifecycle_parser()._actions if action.choices)
    assert [name for name in commands if f"| `{name}" not in text] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


def test_changes_begin_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest == version
