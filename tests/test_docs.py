"""What the pages say is so: links, paths, targets, options, the catalogue example, the version."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from ruamel.yaml import YAML

from canvas.__main__ import _build_parser as canvas_parser
from canvas.pins import tables
from canvas.pins.images import encode_png
from components.ingest import IngestParams
from evaluation.metrics import HEADLINE
from lifecycle.__main__ import _build_parser as lifecycle_parser
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections, read_section, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Input, Output

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs/params.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {GENERATED})]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXAMPLE = "components/count_colours.py"
"""The tutorial's stage: it is not there."""


def refused(pattern: str, good: Callable[[str, Path], bool]) -> dict[str, list[str]]:
    """Page -> what matches `pattern` on it and is not good."""
    by_page: dict[str, list[str]] = {}
    for page in PAGES:
        for match in re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE):
            if not good(match, page):
                by_page.setdefault(page.relative_to(ROOT).as_posix(), []).append(match)
    return by_page


def test_links_lead_somewhere() -> None:
    assert (
        refused(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", lambda target, page: (page.parent / target).exists()) == {}
    )


def test_paths_that_are_named_exist() -> None:
    folders = "canvas|evaluation|lifecycle|components|pipelines|bench|tests|docs|profiles"
    named = rf"`((?:{folders})/[\w./-]+)`"
    assert refused(named, lambda name, _: (ROOT / name).exists() or name == EXAMPLE) == {}


def test_names_beside_a_path_are_in_that_file() -> None:
    assert refused(r"(`[\w/]+\.py`: `\w+`)", lambda reference, _: _defines(*re.findall(r"`(.*?)`", reference))) == {}


def _defines(path: str, name: str) -> bool:
    return bool(re.search(rf"\b(?:def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8")))


def test_imports_of_the_examples_work() -> None:
    def good(line: str, page: Path) -> bool:
        module, names = re.findall(r"from ([\w.]+) import ([\w, ]+)", line)[0]
        imported = importlib.import_module(module)
        return all(
            hasattr(imported, name) or importlib.util.find_spec(f"{module}.{name}") for name in names.split(", ")
        )

    assert refused(r"^ *(from (?:canvas|components|evaluation|lifecycle)[\w.]* import [\w, ]+)$", good) == {}


def test_members_of_the_api_page_exist() -> None:
    text = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: ([\w.]+)\n    options:\n      members: \[([\w, ]+)\]", text, re.MULTILINE)
    members = {(module, name) for module, names in listed for name in names.split(", ")}
    assert {(module, name) for module, name in members if not hasattr(importlib.import_module(module), name)} == set()


def test_targets_are_makes() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert refused(r"(?:`|^)make ([a-z-]+)", lambda target, _: target in targets) == {}


def test_lines_fit() -> None:
    generated = ROOT / "docs" / "reference" / "metrics.md"
    assert refused(r"^(?!\[\w+\]: https?://).{120,}$", lambda line, page: page == generated and line[0] == "|") == {}


def test_stages_and_their_reports_exist() -> None:
    stages = load_stages()
    names = {stage.name for stage in stages}
    assert refused(r"`((?:train|evaluate|validate|tune|mine|sample)_[a-z_]+)`", lambda name, _: name in names) == {}
    reports = {artifact.path for stage in stages for artifact in stage.outputs.values()}
    reports.add("reports/count_colours/metrics.json")
    assert refused(r"`(reports/[\w/.-]+\.\w+)`", lambda path, _: path in reports) == {}


def test_params_that_are_named_exist() -> None:
    sections = load_sections(root=ROOT)

    def good(name: str, page: Path) -> bool:
        return (
            name.partition(".")[0] not in sections
            or _holds(sections, name.split("."))
            or any(metric.key.startswith(name) for metric in HEADLINE)
        )

    assert refused(r"(?:`|-S )([a-z_]+(?:\.[a-z_]+)+)\b", good) == {}


def _holds(values: Any, keys: list[str]) -> bool:
    return not keys or (isinstance(values, dict) and keys[0] in values and _holds(values[keys[0]], keys[1:]))


def test_example_of_a_catalogue_is_read() -> None:
    text = (ROOT / "docs/tutorials/your-catalogue.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    sections = merge_sections(load_sections(root=ROOT), YAML(typ="safe", pure=True).load(example))
    for stage in load_stages():
        read_stage_params(stage, sections)
    params = read_section(IngestParams, "ingest", sections)
    assert params.source == "manifest"
    assert params.manifest.columns["product_id"] == "sku"


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
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert next(title for title in titles if title != "Unreleased") == version
